//! The gRPC service of `proto/quorate/v1`, generated over the messages of
//! `quorate-wire`, and its descriptor set.

/// Package `quorate.v1`: client and server of `VoteService`.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/quorate.v1.rs"));
}

/// The encoded `FileDescriptorSet` of `proto/`, as gRPC reflection serves it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate.binpb"));
