//! One stream, from the moment it stands to its end: a task that reads, a task that
//! writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::{Frame, frame};
use quorate_engine::{Event, StreamId};
use quorate_telemetry::TraceContext;
use quorate_tls::PeerInfo;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, Span};

use super::codec::{BadBytes, bad_bytes, decode};
use super::pack::{MAX_FRAME, encode, pack};
use super::queue::{Waiting, queue};
use super::{GOODBYE_TIME, Sessions};
use crate::mailbox::{Gone, Message, Received, StreamUp};
use crate::traces::Arrival;

/// Frames that are read, verified and handed over together.
const CHUNK: usize = 64;

/// Bytes of one stream's frames that may wait for the engine: frames alone say little of
/// the memory that they take.
const ROOM: usize = 8 * MAX_FRAME;

/// Encoded frames between the writer and the connection.
const ENCODED: usize = 4;

/// How long the other end may take to end the stream after this end has.
const END_TIME: Duration = Duration::from_secs(1);

/// The two ends of a stream as the transport gives them.
pub(crate) struct Ends {
    pub(crate) incoming: Streaming<Bytes>,
    pub(crate) outgoing: mpsc::Sender<Bytes>,
}

impl Ends {
    /// The sender for [`Ends::outgoing`], and what the transport reads from it.
    pub(crate) fn outgoing() -> (mpsc::Sender<Bytes>, ReceiverStream<Bytes>) {
        let (sender, receiver) = mpsc::channel(ENCODED);
        (sender, ReceiverStream::new(receiver))
    }
}

/// Runs one session to its end.
pub(crate) async fn serve(sessions: &Arc<Sessions>, peer: PeerInfo, ends: Ends) {
    let stream = sessions.next_stream();
    let node = peer.identity.node_id.clone();
    let span = tracing::info_span!("exchange", stream = stream.0, peer = %node);
    run(sessions, stream, peer, ends).instrument(span).await;
}

async fn run(sessions: &Arc<Sessions>, stream: StreamId, peer: PeerInfo, ends: Ends) {
    let mut challenge = [0; 32];
    if let Err(error) = getrandom::fill(&mut challenge) {
        // Without a fresh challenge a replayed hello would pass.
        tracing::error!(%error, "exchange.no_randomness");
        return;
    }
    let (queue, waiting) = queue();
    let closing = waiting.closing.clone();
    let up = StreamUp {
        stream,
        peer: peer.identity.node_id.clone(),
        own_certificate: peer.local_certificate_digest,
        peer_certificate: peer.certificate_digest,
        challenge,
        queue,
    };
    if sessions
        .mailbox
        .send(Message::StreamUp(Box::new(up)))
        .await
        .is_err()
    {
        return;
    }
    tracing::debug!(from = %peer.remote_addr, outgoing = peer.outgoing, "exchange.up");

    let writer =
        tokio::spawn(write(sessions.clone(), stream, waiting, ends.outgoing).in_current_span());
    let mut incoming = ends.incoming.ready_chunks(CHUNK);
    let read = read(sessions, stream, &mut incoming);
    tokio::select! {
        () = closing.cancelled() => {}
        ended = read => tracing::debug!(why = %ended, "exchange.read_ended"),
    }
    // This end is done: whatever waits, a goodbye above all, may still leave, and the
    // other end may still end the stream by itself.
    closing.cancel();
    let drain = async {
        let _ = writer.await;
        while incoming.next().await.is_some() {}
    };
    if tokio::time::timeout(END_TIME, drain).await.is_err() {
        // Whoever neither reads nor ends would keep what waits for it for ever.
        peer.cancel.cancel();
    }
    // A driver that is gone has no streams to forget.
    let _ = sessions.mailbox.event(Event::StreamDown { stream }).await;
    tracing::debug!("exchange.down");
}

/// Reads until the stream ends; gives why.
async fn read(
    sessions: &Sessions,
    stream: StreamId,
    incoming: &mut (impl futures_util::Stream<Item = Vec<Result<Bytes, Status>>> + Unpin),
) -> String {
    let limiter: DefaultDirectRateLimiter =
        RateLimiter::direct(Quota::per_second(sessions.frames_per_sec));
    let room = Arc::new(Semaphore::new(ROOM));
    while let Some(chunk) = incoming.next().await {
        sessions.admission.linger().await;
        let mut frames = Vec::with_capacity(chunk.len());
        let mut sizes = Vec::with_capacity(chunk.len());
        let mut end = None;
        for item in chunk {
            match item
                .map_err(Err)
                .and_then(|bytes| Ok((bytes.len(), decode(&bytes).map_err(Ok)?)))
            {
                Ok((size, frame)) => {
                    frames.push(frame);
                    sizes.push(size);
                }
                Err(Ok(bad)) => end = Some(Ended::Bad(bad)),
                Err(Err(status)) => {
                    end = Some(match bad_bytes(&status) {
                        Some(bad) => Ended::Bad(bad),
                        None => Ended::Status(status),
                    });
                }
            }
            if end.is_some() {
                break;
            }
        }
        let received = sessions.meter.gossip_messages.of(["received"]);
        received.inc_by(frames.len() as u64);
        let mut arrival = Arrival::now();
        arrival.together = frames.len();
        let frames = sessions.prewarmer.frames(frames).await;
        arrival.checked = Instant::now();
        for (frame, size) in frames.into_iter().zip(sizes) {
            if limiter.check().is_err() {
                sessions.meter.rate_limited.of(["frames"]).inc();
                limiter.until_ready().await;
            }
            // A frame is at most 1 MiB, and the room is never closed.
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            let Ok(room) = Arc::clone(&room).acquire_many_owned(size).await else {
                return Gone.to_string();
            };
            let span = span_of(&frame);
            let received = Received {
                stream,
                frame,
                arrival,
                span,
                room,
            };
            let message = Message::Frame(Box::new(received));
            if sessions.mailbox.send(message).await.is_err() {
                return Gone.to_string();
            }
        }
        match end {
            None => {}
            Some(Ended::Status(status)) => return status.to_string(),
            Some(Ended::Bad(bad)) => {
                sessions.meter.gossip_messages_malformed.inc();
                tracing::warn!(why = %bad.why, "exchange.bad_frame");
                let event = Event::BadFrame {
                    stream,
                    subject_digest: bad.digest,
                    why: bad.why,
                };
                if sessions.mailbox.event(event).await.is_err() {
                    return Gone.to_string();
                }
                // The engine closes the stream; that ends this future.
                tokio::time::sleep(END_TIME).await;
                return "a bad frame".to_owned();
            }
        }
    }
    "the other end ended it".to_owned()
}

enum Ended {
    Bad(BadBytes),
    Status(Status),
}

/// The span that a frame is handled in; it names the trace of what is in it.
fn span_of(frame: &Frame) -> Span {
    let span = tracing::debug_span!("frame.receive", votes = tracing::field::Empty);
    if let Some(frame::Body::Batch(batch)) = &frame.body {
        span.record("votes", batch.votes.len());
        if tracing::enabled!(tracing::Level::DEBUG) {
            span.in_scope(|| batch.votes.iter().for_each(trace_vote));
        }
    }
    span
}

/// Notes a vote's arrival under the trace that it carries, or under the one that
/// belongs to its transaction.
fn trace_vote(vote: &quorate_consensus::wire::TracedVote) {
    let Some(signed) = &vote.vote else { return };
    let Ok((header, body)) = statement::parse::<VoteBody>(&signed.statement) else {
        return;
    };
    let derived = TraceContext::decision(&header.cluster_id, &body.tx_id);
    // A context of another trace is the sender's mistake and misleads nobody here.
    let context = vote
        .traceparent
        .parse()
        .ok()
        .filter(|c: &TraceContext| c.trace_id == derived.trace_id)
        .unwrap_or(derived);
    tracing::debug!(
        trace_id = %context.trace_id, parent_span_id = %context.span_id,
        tx_id = %body.tx_id, node_id = %header.node_id, "vote.receive"
    );
}

/// Writes what waits, packed, until the queue is closed or the other end is gone.
async fn write(
    sessions: Arc<Sessions>,
    stream: StreamId,
    mut waiting: Waiting,
    outgoing: mpsc::Sender<Bytes>,
) {
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            biased;
            taken = waiting.frames.recv_many(&mut frames, CHUNK) => {
                if taken == 0 {
                    return;
                }
            }
            () = waiting.closing.cancelled() => return,
            () = outgoing.closed() => return,
        }
        tokio::select! {
            biased;
            () = waiting.closing.cancelled() => {}
            () = sessions.admission.linger() => {}
        }
        if waiting.has_drained() {
            tracing::info!("exchange.drained");
            let drained = sessions.mailbox.event(Event::Drained { stream });
            if drained.await.is_err() {
                return;
            }
        }
        for frame in pack(frames.drain(..), MAX_FRAME) {
            // Also a frame that waits already when the stream is closed waits no longer.
            let cut = async {
                waiting.closing.cancelled().await;
                tokio::time::sleep(GOODBYE_TIME).await;
            };
            let sent = tokio::select! {
                biased;
                sent = outgoing.send(encode(frame)) => sent.is_ok(),
                () = cut => false,
            };
            if !sent {
                return;
            }
            sessions.meter.gossip_messages.of(["sent"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use quorate_consensus::NodeId;
    use quorate_consensus::wire::{Goodbye, Ping};
    use quorate_crypto::CachedVerifier;
    use quorate_tls::Registry;
    use tokio_util::sync::CancellationToken;

    use super::super::queue::{CAPACITY, Enqueued};
    use super::super::{Admission, Queue};
    use super::*;
    use crate::mailbox::Mailbox;
    use crate::prewarm::Prewarmer;

    struct Bench {
        queue: Queue,
        messages: mpsc::Receiver<Message>,
        sent: mpsc::Receiver<Bytes>,
        writer: tokio::task::JoinHandle<()>,
    }

    fn bench() -> Bench {
        let (mailbox, messages) = Mailbox::new();
        let sessions = Arc::new(Sessions::new(
            NodeId::new("node1").unwrap(),
            mailbox,
            Prewarmer::new(&[], Arc::new(CachedVerifier::default())),
            Arc::new(Admission::new(Registry::new())),
            Arc::default(),
            NonZeroU32::MIN,
            CancellationToken::new(),
        ));
        let (queue, waiting) = queue();
        let (outgoing, sent) = mpsc::channel(ENCODED);
        let writer = tokio::spawn(write(sessions, StreamId(1), waiting, outgoing));
        Bench {
            queue,
            messages,
            sent,
            writer,
        }
    }

    fn ping(token: u64) -> Frame {
        Frame {
            body: Some(frame::Body::Ping(Ping { token })),
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_loses_one_stretch_and_is_then_resynchronised() {
        let mut bench = bench();
        let mut accepted = 0;
        loop {
            match bench.queue.offer(ping(accepted)) {
                Enqueued::Yes => accepted += 1,
                Enqueued::NowFull => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(accepted >= CAPACITY as u64);
        assert_eq!(bench.queue.offer(ping(0)), Enqueued::Dropped);
        // The peer reads again: all that was accepted comes, in order.
        for token in 0..accepted {
            let bytes = bench.sent.recv().await.unwrap();
            assert_eq!(decode(&bytes).unwrap(), ping(token));
        }
        match bench.messages.recv().await.unwrap() {
            Message::Event(event, _) => {
                assert_eq!(
                    *event,
                    Event::Drained {
                        stream: StreamId(1)
                    }
                );
            }
            _ => panic!("another message"),
        }
        assert_eq!(bench.queue.offer(ping(7)), Enqueued::Yes);
        assert_eq!(decode(&bench.sent.recv().await.unwrap()).unwrap(), ping(7));
    }

    #[tokio::test]
    async fn a_goodbye_is_the_last_word() {
        let mut bench = bench();
        bench.queue.offer(ping(1));
        bench.queue.clone().close(Goodbye::default());
        assert_eq!(decode(&bench.sent.recv().await.unwrap()).unwrap(), ping(1));
        let last = decode(&bench.sent.recv().await.unwrap()).unwrap();
        assert!(matches!(last.body, Some(frame::Body::Goodbye(_))));
        assert!(bench.sent.recv().await.is_none());
        bench.writer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_waits_already_is_cut_when_the_stream_is_closed() {
        let mut bench = bench();
        for token in 0..100 {
            bench.queue.offer(ping(token));
        }
        // Once all places are taken, the writer waits for the next one.
        while bench.sent.len() < ENCODED {
            tokio::task::yield_now().await;
        }
        let queue = bench.queue.clone();
        queue.close(Goodbye::default());
        tokio::time::timeout(Duration::from_secs(10), &mut bench.writer)
            .await
            .expect("the writer gives up")
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_does_not_wait_for_who_does_not_read() {
        let bench = bench();
        for token in 0..100 {
            bench.queue.offer(ping(token));
        }
        bench.queue.clone().close(Goodbye::default());
        // Nobody reads from `sent`; the clock is the test's.
        tokio::time::timeout(Duration::from_secs(10), bench.writer)
            .await
            .expect("the writer gives up")
            .unwrap();
    }
}
