//! Calls that last as long as the bodies of their responses.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{self, Poll, ready},
};

use ::reqwest::{Body, Error, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::body::with_body;
use crate::{
    error::{Error as CallError, Reason, Rejection},
    outcome::{Classification, Outcome},
};

type Bytes = <Body as http_body::Body>::Data;
type End = Result<(), Error>;
type Call = Pin<Box<dyn Future<Output = Result<Response, CallError<Error>>> + Send>>;

/// Where an attempt leaves its response for the caller while it waits for the end of the body.
#[derive(Debug, Default)]
pub(super) struct Handover(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    /// The response, and where the end of its body is to be told.
    There(Box<Response>, oneshot::Sender<End>),
    Taken,
}

impl Handover {
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a response has been handed over: the call has its answer, and no attempt may begin.
    pub(super) fn is_done(&self) -> bool {
        self.with(|state| !matches!(state, State::Waiting))
    }

    pub(super) fn too_late<T, E>() -> Outcome<T, E> {
        Outcome::rejected(Rejection::new("reqwest", Reason::AlreadyAttempted))
    }

    /// Hands a response over and waits for the end of its body, which is then the outcome. It is spent: what the caller
    /// has seen a part of is not fetched again behind its back.
    pub(super) async fn hold(
        &self,
        response: Response,
        classification: Classification,
        classify: impl Fn(&Error) -> Classification,
    ) -> Outcome<Response, Error> {
        let (told, end) = oneshot::channel();
        self.with(|state| {
            if matches!(state, State::Waiting) {
                *state = State::There(Box::new(response), told);
            }
        });
        match end.await {
            Ok(Err(error)) => {
                let classification = classify(&error);
                Outcome::new(Err(CallError::Operation(error)), classification).spent()
            }
            // Nobody tells this one anything if a hedge was faster: it has succeeded too, and ends the call. Otherwise a
            // body goes without a word only together with its call.
            Ok(Ok(())) | Err(_) => Outcome::new(Ok(empty()), classification),
        }
    }

    fn take(&self) -> Option<(Response, oneshot::Sender<End>)> {
        self.with(|state| match state {
            State::There(..) => match std::mem::replace(state, State::Taken) {
                State::There(response, end) => Some((*response, end)),
                State::Waiting | State::Taken => None,
            },
            State::Waiting | State::Taken => None,
        })
    }

    /// Runs a call until its response is handed over, whose body runs the rest.
    pub(super) async fn run(&self, mut call: Call) -> Result<Response, CallError<Error>> {
        let mut finished = poll_fn(|cx| {
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            if self.is_done() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match (self.take(), finished.take()) {
            (Some((response, end)), None) => Ok(with_body(response, |body| Body::wrap(Held::new(body, end, call)))),
            // The call ended at the same moment, a hedge having succeeded too.
            (Some((response, _)), Some(Ok(_))) => Ok(response),
            (_, Some(result)) => result,
            // Nobody else takes what is there.
            (None, None) => Ok(empty()),
        }
    }
}

/// What a call whose response went ahead ends with.
fn empty() -> Response {
    Response::from(::http::Response::new(""))
}

/// A body that runs its call along, up to the end of both.
struct Held {
    body: Body,
    ended: bool,
    end: Option<oneshot::Sender<End>>,
    /// What the reader is told if the call has no error of its own to tell.
    failure: Option<BoxError>,
    /// In a mutex, which nobody ever locks, because a body must be `Sync`.
    call: Option<Mutex<Call>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Held {
    fn new(body: Body, end: oneshot::Sender<End>, call: Call) -> Self {
        Self { body, ended: false, end: Some(end), failure: None, call: Some(Mutex::new(call)) }
    }

    /// Goes on with the call. An error of it ends the body.
    fn poll_call(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(call) = &mut self.call else { return Poll::Ready(()) };
        let result = ready!(call.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx));
        self.call = None;
        if let Err(error) = result {
            self.ended = true;
            self.failure = Some(match error.split() {
                Ok(error) => error.into(),
                Err(error) => error.into(),
            });
        }
        Poll::Ready(())
    }

    /// The body has ended: the attempt that waits for it hears how.
    fn tell(&mut self, end: End) {
        self.ended = true;
        if end.is_err() {
            self.failure = Some(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // If nobody listens any more, the call is over already, and the error comes back.
        if let Some(Err(Err(error))) = self.end.take().map(|told| told.send(end)) {
            self.failure = Some(error.into());
        }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut frame = Poll::Pending;
        if !self.ended {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(data))) => frame = Poll::Ready(Some(Ok(data))),
                Poll::Ready(Some(Err(error))) => self.tell(Err(error)),
                Poll::Ready(None) => self.tell(Ok(())),
                Poll::Pending => {}
            }
        }
        // Also if there is always something to read: the time may be up.
        let call = self.poll_call(cx);
        if !self.ended {
            return frame;
        }
        ready!(call);
        Poll::Ready(self.failure.take().map(Err))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
