//! What a request says about itself: whether it may be repeated, and how much time is left for it.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    context::{Attempt, CallOptions, Idempotency},
    engine::rng::Rng,
};

/// The header by which a service knows a request that it has seen before: `Idempotency-Key`.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether a request may be carried out more than once: [`Safe`](Idempotency::Safe) for the idempotent methods of RFC 9110
/// (GET, HEAD, OPTIONS, TRACE, PUT, DELETE), and for any other method with an `Idempotency-Key` that is not blank;
/// [`Unsafe`](Idempotency::Unsafe) otherwise, which is POST, PATCH, CONNECT, and every method that the RFC does not know.
///
/// A request with an `Idempotency-Key` is safe only if the service heeds it. Not all do.
///
/// ```
/// use http::{HeaderMap, Method};
/// use withstand::{Idempotency, http::{IDEMPOTENCY_KEY, idempotency}};
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(idempotency(&Method::PUT, &headers), Idempotency::Safe);
/// assert_eq!(idempotency(&Method::POST, &headers), Idempotency::Unsafe);
/// headers.insert(IDEMPOTENCY_KEY, "order-7".parse()?);
/// assert_eq!(idempotency(&Method::POST, &headers), Idempotency::Safe);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[must_use]
pub fn idempotency(method: &Method, headers: &HeaderMap) -> Idempotency {
    if method.is_idempotent() || has_key(headers) { Idempotency::Safe } else { Idempotency::Unsafe }
}

/// The options of a call that makes this request: its [`idempotency`], no deadline, normal priority.
#[must_use]
pub fn call_options(method: &Method, headers: &HeaderMap) -> CallOptions {
    CallOptions::new().idempotency(idempotency(method, headers))
}

fn has_key(headers: &HeaderMap) -> bool {
    headers.get_all(IDEMPOTENCY_KEY).iter().any(|key| !key.as_bytes().trim_ascii().is_empty())
}

/// The time that is left to an attempt, in whole milliseconds, as the value of a header that tells the server: never more
/// than there is. None if nothing limits the attempt. `DeadlineLayer`, of the feature `axum`, reads such a header.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use http::Request;
/// use withstand::{CallOptions, Timeout, http::remaining_millis};
///
/// let timeout = Timeout::new(Duration::from_millis(250))?;
/// let request = timeout
///     .call_with(CallOptions::new(), |attempt| async move {
///         let mut request = Request::new(());
///         if let Some(left) = remaining_millis(&attempt) {
///             request.headers_mut().insert("x-request-timeout-ms", left);
///         }
///         Ok::<_, std::io::Error>(request) // .. and sends it
///     })
///     .await?;
/// assert_eq!(request.headers()["x-request-timeout-ms"], "250");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn remaining_millis(attempt: &Attempt) -> Option<HeaderValue> {
    let left = attempt.remaining()?;
    Some(HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
}

/// Makes idempotency keys: one for each call, which all its attempts and hedges carry.
///
/// Add the key to the request before the call, not inside of its closure: see the [example](crate::http).
///
/// A key is a random UUID, without quotes: what the services that heed such keys take. No two of a process are the same,
/// and those of different processes differ as any two random UUIDs do. It is no secret: it can be guessed by whoever has
/// seen others.
#[derive(Debug)]
pub struct IdempotencyKeys {
    // Two sequences of 64 bits, each with a seed of its own: one would leave it to 64 bits whether two processes meet.
    high: Rng,
    low: Rng,
}

impl IdempotencyKeys {
    /// Keys that nobody else gets.
    #[must_use]
    pub fn new() -> Self {
        Self { high: Rng::from_entropy(), low: Rng::from_entropy() }
    }

    /// The same keys for the same seed: for tests only, since a service ignores a request whose key it has seen.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { high: Rng::seeded(seed), low: Rng::seeded(!seed) }
    }

    /// A new key.
    #[must_use]
    pub fn key(&self) -> String {
        let (high, low) = (self.high.bits(), self.low.bits());
        // The version and the variant of a random UUID (RFC 9562).
        let (high, low) = ((high & !0xF000) | 0x4000, (low & (u64::MAX >> 2)) | (1 << 63));
        let (first, second, third) = (high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF);
        format!("{first:08x}-{second:04x}-{third:04x}-{:04x}-{:012x}", low >> 48, low & (u64::MAX >> 16))
    }

    /// Gives a request a key, unless it has one that is not blank.
    pub fn ensure(&self, headers: &mut HeaderMap) {
        if has_key(headers) {
            return;
        }
        if let Ok(key) = HeaderValue::try_from(self.key()) {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
    }
}

impl Default for IdempotencyKeys {
    fn default() -> Self {
        Self::new()
    }
}
