//! Bodies of responses, read within the attempt.

use std::{
    pin::Pin,
    task::{self, Poll},
};

use ::reqwest::{Body, Error, Response, ResponseBuilderExt};
use http_body::{Frame, SizeHint};

type Bytes = <Body as http_body::Body>::Data;

/// The same response with its body read, up to that many bytes. Where there are more, the rest is still to come.
pub(super) async fn buffered(mut response: Response, up_to: usize) -> Result<Response, Error> {
    let mut read = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        read.extend_from_slice(&chunk);
        if read.len() > up_to {
            return Ok(with_body(response, |rest| Body::wrap(Prefixed { first: Some(read.into()), rest })));
        }
    }
    Ok(with_body(response, |_ended| Body::from(read)))
}

/// The same response with another body.
pub(super) fn with_body(response: Response, body: impl FnOnce(Body) -> Body) -> Response {
    let url = response.url().clone();
    let (mut parts, old) = ::http::Response::from(response).into_parts();
    // A response that is made of parts has its URL among their extensions.
    if let Ok(told) = ::http::Response::builder().url(url).body(()) {
        parts.extensions.extend(told.into_parts().0.extensions);
    }
    Response::from(::http::Response::from_parts(parts, body(old)))
}

/// What was read already, and what is still to come.
struct Prefixed {
    first: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(first) = &self.first else { return self.rest.size_hint() };
        let (rest, first) = (self.rest.size_hint(), u64::try_from(first.len()).unwrap_or(u64::MAX));
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(first));
        }
        hint
    }
}
