//! As much of HTTP/2 (RFC 9113) and gRPC as it takes to see requests and replies pass.

use std::collections::HashMap;

/// What a client's side of a connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Before each gRPC message: whether it is compressed, and its length.
const MESSAGE_HEADER: usize = 5;

/// A whole gRPC message of a client. Its server may act on it at once, and need not
/// wait for the end of the client's side of the call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its call; `None` when the connection speaks something else than HTTP/2, where
    /// whatever is read at once counts as a request.
    pub(super) stream: Option<u32>,
    /// The message.
    pub(super) body: Vec<u8>,
}

/// Reads what a client sends.
#[derive(Default)]
pub(super) struct Requests {
    speaks: Speaks,
    frames: Frames,
    /// Of each call, what has come of its next message.
    begun: HashMap<u32, Vec<u8>>,
}

#[derive(Default)]
enum Speaks {
    /// So far it may be the preface.
    #[default]
    Unknown,
    Http2,
    Else,
}

impl Requests {
    /// The requests that are whole with `bytes`, which come next.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Request> {
        if let Speaks::Unknown = self.speaks {
            self.frames.unread.extend(bytes);
            let begun = &self.frames.unread;
            let length = begun.len().min(PREFACE.len());
            if begun[..length] != PREFACE[..length] {
                self.speaks = Speaks::Else;
            } else if length == PREFACE.len() {
                self.speaks = Speaks::Http2;
                self.frames.unread.drain(..length);
                return self.messages(&[]);
            } else {
                return Vec::new();
            }
        }
        match self.speaks {
            Speaks::Http2 => self.messages(bytes),
            _ => vec![Request {
                stream: None,
                body: bytes.to_owned(),
            }],
        }
    }

    fn messages(&mut self, bytes: &[u8]) -> Vec<Request> {
        let mut whole = Vec::new();
        for frame in self.frames.read(bytes) {
            let stream = frame.stream;
            if frame.kind == DATA {
                let begun = self.begun.entry(stream).or_default();
                begun.extend(frame.payload);
                while let Some(body) = take_message(begun) {
                    let stream = Some(stream);
                    whole.push(Request { stream, body });
                }
            }
            if ends(frame.kind, frame.flags) {
                self.begun.remove(&stream);
            }
        }
        whole
    }
}

fn take_message(begun: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (&[_, length @ ..], rest) = begun.split_first_chunk::<MESSAGE_HEADER>()?;
    let length = u32::from_be_bytes(length) as usize;
    let body = rest.get(..length)?.to_owned();
    begun.drain(..MESSAGE_HEADER + length);
    Some(body)
}

/// Whether nothing more comes from this side of the call.
fn ends(kind: u8, flags: u8) -> bool {
    match kind {
        DATA | HEADERS => flags & END_STREAM != 0,
        kind => kind == RST_STREAM,
    }
}

/// Reads what a server sends to a client that speaks HTTP/2.
#[derive(Default)]
pub(super) struct Replies(Frames);

impl Replies {
    /// The calls that are answered in `bytes`, which come next: by data, or by their
    /// end.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<u32> {
        let answers = |frame: &Frame| {
            frame.kind == DATA && !frame.payload.is_empty() || ends(frame.kind, frame.flags)
        };
        let frames = self.0.read(bytes).into_iter();
        frames.filter(answers).map(|frame| frame.stream).collect()
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Takes a stream of bytes apart into frames.
#[derive(Default)]
struct Frames {
    unread: Vec<u8>,
}

impl Frames {
    fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.unread.extend(bytes);
        let mut frames = Vec::new();
        let mut rest = self.unread.as_slice();
        while let Some((&head, after)) = rest.split_first_chunk::<FRAME_HEADER>() {
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else {
                break;
            };
            let payload = match (kind, flags & PADDED, payload) {
                (DATA, PADDED, [padding, padded @ ..]) => {
                    &padded[..padded.len().saturating_sub(usize::from(*padding))]
                }
                _ => payload,
            };
            frames.push(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                payload: payload.to_owned(),
            });
            rest = after;
        }
        self.unread = rest.to_owned();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [[0].as_slice(), &length, body].concat()
    }

    #[test]
    fn requests_are_whole_messages_however_the_bytes_are_cut() {
        const SETTINGS: u8 = 4;
        let (put, watch) = (message(b"put"), message(b"watch"));
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(SETTINGS, 1, 0, b""));
        bytes.extend(frame(HEADERS, 4, 1, b"/Put"));
        bytes.extend(frame(HEADERS, 4, 3, b"/Watch"));
        bytes.extend(frame(DATA, 0, 1, &put[..6]));
        bytes.extend(frame(DATA, 0, 3, &[watch.clone(), watch].concat()));
        bytes.extend(frame(DATA, 0, 1, &put[6..]));
        bytes.extend(frame(DATA, 1, 1, b""));
        bytes.extend(frame(DATA, 9, 5, &[&[3], &*message(b""), b"pad"].concat()));
        let expected = [(3, "watch"), (3, "watch"), (1, "put"), (5, "")];
        let expected = expected.map(|(stream, body)| Request {
            stream: Some(stream),
            body: body.into(),
        });
        for size in 1..=bytes.len() {
            let mut requests = Requests::default();
            let whole: Vec<_> = bytes.chunks(size).flat_map(|b| requests.read(b)).collect();
            assert_eq!(whole, expected);
        }
    }

    #[test]
    fn calls_are_answered_by_data_or_by_their_end() {
        let mut bytes = frame(HEADERS, 4, 1, b"200");
        bytes.extend(frame(DATA, 0, 1, &message(b"value")));
        bytes.extend(frame(RST_STREAM, 0, 3, b"1234"));
        bytes.extend(frame(HEADERS, 5, 5, b"grpc-status: 7"));
        for size in 1..=bytes.len() {
            let mut replies = Replies::default();
            let answered: Vec<_> = bytes.chunks(size).flat_map(|b| replies.read(b)).collect();
            assert_eq!(answered, [1, 3, 5]);
        }
    }

    #[test]
    fn what_is_not_http2_is_a_request_as_it_is_read() {
        let mut requests = Requests::default();
        for body in [b"PRI * BUT NOT SO".as_slice(), b"more"] {
            let request = Request {
                stream: None,
                body: body.to_owned(),
            };
            assert_eq!(requests.read(body), [request]);
        }
    }
}
