//! Calls that no generated client would make: any bytes, to any method.

use std::sync::LazyLock;

use bytes::Bytes;
use prost_reflect::DescriptorPool;
use quorate_node::exchange::RawCodec;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::Cluster;

/// Every method of the API that is asked once and is no stream of frames, as
/// `/package.Service/Method`. From the descriptors, so that no new one is forgotten.
pub static METHODS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for service in pool.services() {
        let asked = service.methods().filter(|m| !m.is_client_streaming());
        methods.extend(asked.map(|m| format!("/{}/{}", service.full_name(), m.name())));
    }
    for known in ["/quorate.v1.VoteService/Submit", DRAIN] {
        assert!(methods.iter().any(|method| method == known), "{methods:?}");
    }
    methods
});

/// The one method that ends the node.
pub const DRAIN: &str = "/quorate.v1.OperatorService/Drain";

/// Connections to one node, of whoever may call it.
pub struct Callers {
    client: Channel,
    operator: Channel,
}

impl Callers {
    /// Those of node `i`.
    pub fn of(cluster: &Cluster, i: usize) -> Self {
        let channel = |name| cluster.channel(i, &cluster.person(i, name));
        Self {
            client: channel("client"),
            operator: channel("operator"),
        }
    }

    /// That of somebody who may call this method.
    pub fn who_may(&self, method: &str) -> &Channel {
        match method.starts_with("/quorate.v1.OperatorService/") {
            true => &self.operator,
            false => &self.client,
        }
    }
}

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
