//! The rest of a request that was answered before all of it had come, as a refusal is.
//!
//! A server that closes at once resets the connection: the caller, still sending, may never see the answer, and one
//! that has sent all of it may send its next request into a connection that is going away. So the rest is read and
//! forgotten, within bounds, and the connection stays.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, header};
use futures_util::StreamExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

/// More than a caller has on its way in the usual buffers, little enough to give away.
const MOST: usize = 8 << 20;
const LONGEST: Duration = Duration::from_secs(5);

/// A request's body; what a handler leaves of it is read to its end.
pub(crate) struct Leftover {
    body: Option<Incoming>,
    /// The caller sends nothing before it is asked to: nothing is on its way.
    waits: bool,
}

impl Leftover {
    pub(crate) fn of(request: Request<Incoming>) -> Request<Self> {
        let waits = request.headers().contains_key(header::EXPECT);
        request.map(|body| Self { body: Some(body), waits })
    }
}

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !self.waits && !body.is_end_stream());
        // Without a runtime the connection is gone as well. One task at most for each connection.
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LONGEST, forget(rest)));
        }
    }
}

async fn forget(rest: Incoming) {
    let (mut rest, mut left) = (Body::new(rest).into_data_stream(), MOST);
    while let Some(Ok(chunk)) = rest.next().await {
        left = match left.checked_sub(chunk.len()) {
            Some(left) => left,
            None => return,
        };
    }
}
