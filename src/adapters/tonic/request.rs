//! What the request of an attempt tells the server.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use ::tonic::{IntoRequest, Request, metadata::MetadataMap};

use crate::{context::Attempt, timeout_header};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// The request of an attempt: a message, a stream, or a [`Request`] with metadata of your own, with what the server is to
/// know about the attempt.
///
/// | metadata | value |
/// |---|---|
/// | `grpc-timeout` | the time that is left to this attempt, to its nearest deadline: whole milliseconds, or whole seconds where those would take more than eight digits; never more than there is. `0m` in the last millisecond, when a server need not even begin. As it is, if the request has a shorter one; without any deadline it is left alone |
/// | `grpc-previous-rpc-attempts` | how many attempts of this call began before this one, hedges among them. The first one has none, also if the request had one: that would be somebody else's |
///
/// Call it in the closure of [`call_with`](crate::Pipeline::call_with), which gives the [`Attempt`], so that each attempt has
/// a request of its own:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tonic::{Request, Status};
/// use withstand::{CallOptions, Timeout, tonic::request};
///
/// #[derive(Clone)]
/// struct GetUser { id: u32 }
///
/// let timeout = Timeout::new(Duration::from_millis(250))?;
/// let sent = timeout
///     .call_with(CallOptions::new(), |attempt| async move {
///         let mut request = request(GetUser { id: 7 }, attempt);
///         request.metadata_mut().insert("tenant", "acme".parse().unwrap());
///         Ok::<_, Status>(request) // .. and sends it: client.get_user(request).await
///     })
///     .await?;
/// assert_eq!(sent.metadata().get("grpc-timeout").unwrap(), "250m");
/// # Ok(())
/// # }
/// ```
///
/// An attempt does not begin after its deadline, so this is not called when no time is left; should the last of it pass
/// meanwhile, the request has `0m`.
#[must_use]
pub fn request<T>(request: impl IntoRequest<T>, attempt: Attempt) -> Request<T> {
    let mut request = request.into_request();
    let mut headers = std::mem::take(request.metadata_mut()).into_headers();
    tell_time(&mut headers, &attempt);
    match attempt.previous() {
        0 => drop(headers.remove(PREVIOUS_ATTEMPTS)),
        previous => drop(headers.insert(PREVIOUS_ATTEMPTS, previous.into())),
    }
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request
}

pub(super) fn tell_time(headers: &mut HeaderMap, attempt: &Attempt) {
    let Some(left) = attempt.remaining() else { return };
    if headers.get(TIMEOUT).and_then(parse).is_some_and(|given| given <= left) {
        return;
    }
    if let Ok(left) = HeaderValue::try_from(timeout_header::grpc_timeout(left)) {
        headers.insert(TIMEOUT, left);
    }
}

/// One to eight digits and a unit: what else there may be no server heeds.
fn parse(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?;
    let is_valid = matches!(value.len(), 2..=9)
        && value.starts_with(|digit: char| digit.is_ascii_digit())
        && value.ends_with(|unit: char| unit.is_ascii_alphabetic());
    if is_valid { timeout_header::parse(value) } else { None }
}
