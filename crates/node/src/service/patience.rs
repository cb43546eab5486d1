//! How long a request may take to arrive. A call whose bytes trickle in would hold its
//! place, and what has come of it, for ever.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http_body_util::{BodyStream, StreamBody};
use tonic::Status;
use tonic::body::Body;

use crate::status::ApiError;

/// The only methods whose callers may go on speaking.
const STREAMS: [&str; 2] = ["Exchange", "ServerReflectionInfo"];

/// Ends the request with an error if it is not whole in time.
pub(super) fn within(patience: Duration, request: http::Request<Body>) -> http::Request<Body> {
    let method = request.uri().path().rsplit('/').next();
    if method.is_some_and(|method| STREAMS.contains(&method)) {
        return request;
    }
    request.map(|body| {
        let deadline = Box::pin(tokio::time::sleep(patience));
        let frames = BodyStream::new(body);
        let frames = stream::unfold(Some((frames, deadline)), move |state| async move {
            let (mut frames, mut deadline) = state?;
            let frame = tokio::select! {
                biased;
                frame = frames.next() => frame?,
                () = &mut deadline => {
                    return Some((Err(Status::from(ApiError::RequestSlow(patience))), None));
                }
            };
            Some((frame, Some((frames, deadline))))
        });
        Body::new(StreamBody::new(frames))
    })
}
