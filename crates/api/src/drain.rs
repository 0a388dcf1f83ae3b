//! Bodies that a handler refused before it had read them are read to their end and thrown away.
//!
//! Closing a connection on which bytes still arrive resets it, and the reset takes the answer with
//! it: the client would see a broken pipe instead of the words that tell what was wrong.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

/// Most bytes that are read for nothing; a client that sends more is cut off.
const MAX_BYTES: usize = 256 << 20;
/// Longest pause of the client, and longest time for all of it.
const MAX_PAUSE: Duration = Duration::from_secs(2);
const MAX_TIME: Duration = Duration::from_secs(30);

/// Lets the answer leave at once, and what the client still sends arrive.
pub(crate) async fn rest(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // A client that asks first sends nothing once it is refused.
    let asks = request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| Body::new(Rest { body: Some(body), sent: !asks }));
    next.run(request).await
}

struct Rest {
    /// Until its end.
    body: Option<Body>,
    /// Whether the client sends without being told to go on.
    sent: bool,
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| self.sent && !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (unread, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(MAX_TIME, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(
        MAX_PAUSE,
        std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)),
    )
    .await
    {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}
