//! The plain protobuf messages of `proto/quorate/v1`, generated; no gRPC here, so
//! that the pure crates may use them.

/// Package `quorate.v1`.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/quorate.v1.rs"));
}
