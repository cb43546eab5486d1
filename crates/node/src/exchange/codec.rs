//! Frames as raw bytes: what is no protobuf must still be seen, to be accused.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use quorate_consensus::wire::{self, Frame};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// Hands bytes through as they are, in both directions: a node reads its peers' frames
/// so, and whoever tries a node with any bytes sends them so.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadBytes {
    /// BLAKE3-256 of the bytes, or, where the library threw them away, of what it
    /// said about them.
    pub(crate) digest: [u8; 32],
    /// What is wrong with them.
    pub(crate) why: String,
}

/// Decodes a frame.
pub(crate) fn decode(bytes: &Bytes) -> Result<Frame, BadBytes> {
    match wire::ExchangeRequest::decode(bytes.clone()) {
        Ok(request) => Ok(request.frame.unwrap_or_default()),
        Err(error) => Err(BadBytes {
            digest: *blake3::hash(bytes).as_bytes(),
            why: format!("not a frame: {error}"),
        }),
    }
}

/// Whether a stream's error is about the other end's bytes, and not the connection's
/// end: too large a message, or one framed as gRPC does not frame.
pub(crate) fn bad_bytes(status: &Status) -> Option<BadBytes> {
    let framing = status.code() == Code::Internal && status.message().starts_with("protocol error");
    (status.code() == Code::OutOfRange || framing).then(|| BadBytes {
        digest: *blake3::hash(status.message().as_bytes()).as_bytes(),
        why: status.message().to_owned(),
    })
}
