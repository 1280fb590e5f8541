//! `Retry-After`, in both of its forms.

use std::time::{Duration, SystemTime};

use ::http::{
    HeaderMap, HeaderName,
    header::{DATE, RETRY_AFTER},
};

/// What `Retry-After` is taken for if it says more: a day. Nobody waits longer within a call, and a server's clock that
/// is years ahead is as good as no clock.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a response asks to be left alone, by its `Retry-After`.
///
/// | value | the hint |
/// |---|---|
/// | seconds: `120` | so long |
/// | a date: `Wed, 21 Oct 2015 07:28:00 GMT`, or one of HTTP's two old forms | from the response's own `Date` until then, so that the clocks need not agree; without a `Date` that can be read, from now by the wall clock |
/// | a date that has passed | zero: now |
/// | more than [`LONGEST_RETRY_AFTER`] | that |
/// | missing; negative, with a fraction, anything else | none |
/// | several headers | the longest that can be read |
///
/// A [`Retry`](crate::Retry) takes of it no more than its [`max_hint`](crate::RetryBuilder::max_hint), 30 s by default.
///
/// The wall clock is read nowhere else in this crate; [`retry_after_at`] does not read it.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, header::{DATE, RETRY_AFTER}};
/// use withstand::http::retry_after;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(RETRY_AFTER, "Wed, 21 Oct 2015 07:28:30 GMT".parse()?);
/// headers.insert(DATE, "Wed, 21 Oct 2015 07:28:00 GMT".parse()?);
/// assert_eq!(retry_after(&headers), Some(Duration::from_secs(30)));
///
/// headers.insert(RETRY_AFTER, "2".parse()?);
/// assert_eq!(retry_after(&headers), Some(Duration::from_secs(2)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    longest(headers, wall_clock)
}

/// The same, with the wall clock's time given: for tests of your own, and where another clock is the right one. It counts
/// only for a date in a response without a `Date`.
#[must_use]
pub fn retry_after_at(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    longest(headers, || now)
}

#[expect(clippy::disallowed_methods, reason = "a date in a header can be compared with nothing else")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn longest(headers: &HeaderMap, now: impl Fn() -> SystemTime) -> Option<Duration> {
    let values = texts(headers, RETRY_AFTER);
    let asked = values.filter_map(|value| seconds(value).or_else(|| Some(until(date(value)?, headers, &now))));
    asked.max().map(|asked| asked.min(LONGEST_RETRY_AFTER))
}

fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| Some(value.to_str().ok()?.trim()))
}

fn seconds(value: &str) -> Option<Duration> {
    if value.is_empty() || !value.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // All digits, so it can only be too large.
    Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
}

fn date(value: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(value).ok()
}

fn until(asked: SystemTime, headers: &HeaderMap, now: impl Fn() -> SystemTime) -> Duration {
    let sent = texts(headers, DATE).find_map(date).unwrap_or_else(now);
    asked.duration_since(sent).unwrap_or(Duration::ZERO)
}
