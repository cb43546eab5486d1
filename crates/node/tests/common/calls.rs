//! Calls that no generated client would make: any bytes, to any method.

use bytes::Bytes;
use quorate_node::exchange::RawCodec;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Every method that is no stream of frames.
pub const METHODS: [&str; 6] = [
    "/quorate.v1.VoteService/Submit",
    "/quorate.v1.VoteService/Status",
    "/quorate.v1.VoteService/Watch",
    "/quorate.v1.VoteService/List",
    "/quorate.v1.VoteService/GetCertificate",
    "/quorate.v1.VoteService/GetRules",
];

/// Calls any method with any bytes; gives the first message or the error.
pub async fn call(channel: &Channel, method: &'static str, bytes: &[u8]) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method);
    let request = Request::new(Bytes::copy_from_slice(bytes));
    let response = grpc.server_streaming(request, path, RawCodec).await?;
    let message = response.into_inner().message().await?;
    message.ok_or_else(|| Status::unknown("nothing came"))
}

/// One call whose gRPC framing says more bytes than there are.
pub async fn truncated(channel: &Channel, method: &str) -> Status {
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| tower::Service::poll_ready(&mut channel, cx))
        .await
        .unwrap();
    let request = http::Request::post(format!("http://node{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new("\0\0\0\0\x20half".to_owned()))
        .unwrap();
    let response = tower::Service::call(&mut channel, request).await.unwrap();
    Status::from_header_map(response.headers()).expect("an error at once")
}
