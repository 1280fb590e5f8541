//! The values that everything speaks in: what they say, and which of them are the same.
#![cfg(test)]

mod support;

use std::{
    borrow::Cow, collections::hash_map::RandomState, error::Error as _, fmt, future::pending, hash::BuildHasher, io,
};

use support::{EVERY_VERDICT, ms, secs};
use tokio::time::{Instant, sleep};
use withstand::{
    Backoff, Bulkhead, CallOptions, Classification, Classify, ConfigError, Error, Fallback, Name, Outcome, Phase,
    Pipeline, Policy, Reason, Rejection, Retry, Scope, TimedOut, Verdict, VerdictKind, WarningKind,
};

type Failed = Error<io::Error>;

fn refused() -> Failed {
    Rejection::new("db", Reason::BulkheadFull).with_retry_after(secs(2)).into()
}

fn broken() -> Failed {
    Error::Operation(io::Error::other("no route"))
}

/// A call that its caller's deadline ends before it begins.
async fn late() -> TimedOut {
    let nothing = Pipeline::builder("users").build().unwrap();
    let options = CallOptions::new().deadline(Instant::now());
    let ended: Result<(), Failed> = nothing.call_with(options, |_| pending()).await;
    let timed_out = ended.unwrap_err().timed_out().unwrap().clone();
    assert_eq!((timed_out.attempts(), timed_out.limit(), timed_out.phase()), (0, ms(0), Phase::Entry));
    timed_out
}

/// `BulkheadFull` as `bulkhead_full`.
fn in_snake_case(value: &impl fmt::Debug) -> String {
    let mut word = String::new();
    for letter in format!("{value:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

#[tokio::test(start_paused = true)]
async fn an_error_is_one_of_three_and_knows_which() {
    type Seen = (bool, bool, bool, Option<String>, bool, bool);
    let seen = |error: Failed| -> Seen {
        let said = error.operation().map(ToString::to_string);
        let (timed_out, rejection) = (error.timed_out().is_some(), error.rejection().is_some());
        let is = (error.is_operation(), error.is_timeout(), error.is_rejected());
        assert_eq!(error.source().map(ToString::to_string), said, "the source is the operation's own error");
        assert_eq!(error.into_operation().map(|error| error.to_string()), said);
        (is.0, is.1, is.2, said, timed_out, rejection)
    };
    assert_eq!(seen(broken()), (true, false, false, Some("no route".to_owned()), false, false));
    assert_eq!(seen(late().await.into()), (false, true, false, None, true, false));
    assert_eq!(seen(refused()), (false, false, true, None, false, true));

    assert_eq!((refused().retry_after(), broken().retry_after()), (Some(secs(2)), None));
    assert_eq!(broken().split().unwrap().to_string(), "no route");
    assert_eq!(refused().split().unwrap_err(), Error::from(refused().rejection().unwrap().clone()));
    assert_eq!(Error::from(late().await).split(), Err::<(), _>(Error::Timeout(late().await)));
    let kinds = [broken(), refused(), late().await.into()].map(|error| error.map(|error| error.kind()));
    assert!(matches!(kinds, [Error::Operation(io::ErrorKind::Other), Error::Rejected(_), Error::Timeout(_)]));
}

/// What says more if asked.
struct Twice;
impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if f.alternate() { "in full" } else { "in short" })
    }
}

/// One line without the source, as reporters of errors expect it, and all of it if asked.
#[test]
fn an_error_of_the_operation_is_said_in_full_if_asked() {
    assert_eq!(broken().to_string(), "the operation failed");
    assert_eq!(format!("{:#}", broken()), "the operation failed: no route");
    assert_eq!(format!("{:#}", refused()), refused().to_string());

    // And asked in the same way is what is inside.
    assert_eq!(format!("{:#}", Error::Operation(Twice)), "the operation failed: in full");
}

#[test]
fn a_rejection_says_by_whom_why_and_when_to_come_back() {
    let reasons = [
        (Reason::CircuitOpen, "the circuit is open"),
        (Reason::CircuitHalfOpen, "the circuit is half-open and its probes are taken"),
        (Reason::Isolated, "the circuit is isolated by hand"),
        (Reason::BulkheadFull, "no permit is free"),
        (Reason::QueueTimeout, "no permit came free within the longest wait"),
        (Reason::RateLimited, "the rate limit is used up"),
        (Reason::Shed, "shed to protect this process"),
        (Reason::AlreadyAttempted, "what can be attempted once was attempted already"),
    ];
    for (reason, says) in reasons {
        let rejection = Rejection::new("db", reason);
        assert_eq!((rejection.policy(), rejection.reason(), rejection.retry_after()), (&"db".into(), reason, None));
        assert_eq!(rejection.to_string(), format!("rejected by db: {says}"));
        assert_eq!(reason.as_str(), in_snake_case(&reason));
    }
    let own = Reason::Custom("used_up");
    assert_eq!((own.as_str(), own.to_string()), ("used_up", "used_up".to_owned()));
    assert_eq!(refused().to_string(), "rejected by db: no permit is free, retry after 2s");
}

/// What a call ends with whose operation fails so many times and then hangs.
async fn ending<P, C>(pipeline: &Pipeline<P, C>, failures: u32) -> String
where
    P: Policy<(), io::Error>,
    C: Classify<(), io::Error>,
{
    let options = CallOptions::new().deadline(Instant::now() + secs(9));
    let ended = pipeline.call_with(options, |attempt| async move {
        if attempt.number() > failures {
            pending::<()>().await;
        }
        sleep(ms(10)).await;
        Err(io::Error::other("no route"))
    });
    let error = ended.await.unwrap_err();
    let (text, attempts) = (error.to_string(), error.timed_out().unwrap().attempts());
    let counted = match attempts {
        0 => "(no attempt made)".to_owned(),
        1 => "(1 attempt made)".to_owned(),
        more => format!("({more} attempts made)"),
    };
    assert!(text.ends_with(&counted) || text.contains("attempt limit") && attempts == 1, "{text}: {attempts}");
    text
}

#[tokio::test(start_paused = true)]
async fn a_timeout_says_which_limit_passed_and_what_the_call_was_doing() {
    let users = || Pipeline::builder("users");
    let retry = || Retry::builder().max_attempts(4).without_budget().backoff(Backoff::constant(ms(10)));
    assert_eq!(late().await.to_string(), "timed out: the deadline limit of 0ns passed during entry (no attempt made)");

    let whole = users().timeout(ms(50)).retry(retry()).build().unwrap();
    let within = "timed out: the total limit of 50ms passed during";
    assert_eq!(ending(&whole, 0).await, format!("{within} an attempt (1 attempt made)"));
    assert_eq!(ending(&whole, 1).await, format!("{within} an attempt (2 attempts made)"));

    let each = users().retry(retry()).timeout(ms(50)).build().unwrap();
    assert_eq!(ending(&each, 1).await, "timed out: the attempt limit of 50ms passed during an attempt");

    let none = users().retry(retry()).build().unwrap();
    let of_the_caller = "timed out: the deadline limit of 9s passed during an attempt (3 attempts made)";
    assert_eq!(ending(&none, 2).await, of_the_caller);

    let one = users().bulkhead(Bulkhead::builder().limit(1).queue(1).max_wait(secs(30))).build().unwrap();
    let (_, waited) = tokio::join!(ending(&one, 0), ending(&one, 0));
    assert_eq!(waited, "timed out: the deadline limit of 9s passed during the wait in a queue (no attempt made)");

    let substitute =
        Fallback::from_future(|_: &Outcome<(), io::Error>| pending::<Option<Result<(), io::Error>>>()).limit(ms(49));
    let answered = users().timeout(ms(50)).fallback(substitute).build().unwrap();
    assert_eq!(ending(&answered, 1).await, format!("{within} the fallback (1 attempt made)"));

    // A retry does not begin a wait towards a limit that it knows: this is what a policy of one's own inside it meets.
    assert_eq!(Phase::Backoff.to_string(), "the backoff between attempts");
}

#[test]
fn every_word_is_the_name_in_snake_case() {
    fn all<T: fmt::Debug, const N: usize>(values: [T; N], word: impl Fn(&T) -> &'static str) {
        for value in values {
            assert_eq!(word(&value), in_snake_case(&value));
        }
    }
    use Phase as P;
    use VerdictKind as V;
    use WarningKind as W;
    all([Scope::Total, Scope::Attempt, Scope::Deadline], |scope| scope.as_str());
    all([P::Entry, P::Queue, P::Backoff, P::Attempt, P::Fallback], |phase| phase.as_str());
    let verdicts = [V::Success, V::Transient, V::Unreached, V::Throttled, V::Failure, V::Ignored, V::Rejected];
    all(verdicts, |kind| kind.as_str());
    assert_eq!(verdicts.map(|kind| kind.to_string()), verdicts.map(VerdictKind::as_str));
    let warnings = [
        W::NoTimeout,
        W::NoTotalTimeout,
        W::NoAttemptTimeout,
        W::NoClassifier,
        W::NoBudget,
        W::UselessBudget,
        W::RetriesExceedTimeout,
        W::UselessMaxElapsed,
        W::SingleAttemptRetry,
        W::NestedRetries,
        W::NestedHedges,
        W::HedgeOutsideRetry,
        W::HedgeTooLate,
        W::HedgeExceedsBulkhead,
        W::BreakerOutsideRetry,
        W::BreakerOutsideHedge,
        W::BreakerOutsideTimeout,
        W::UnreachableSlowCall,
        W::QueueInsideBreaker,
        W::QueueExceedsTimeout,
        W::BulkheadOutsideRetry,
        W::ClosedBulkhead,
        W::FallbackInsideTimeout,
        W::FallbackNotOutermost,
    ];
    all(warnings, |kind| kind.as_str());
    assert_eq!(format!("{:>12}", W::NoTimeout), "  no_timeout");
}

#[test]
fn a_verdict_knows_its_kind_and_lends_its_word_as_a_label() {
    for verdict in EVERY_VERDICT {
        let kind = verdict.kind();
        assert_eq!(verdict.is_success(), kind == VerdictKind::Success);
        assert_eq!(verdict.is_rejected(), kind == VerdictKind::Rejected);
        // What nothing repeats carries no hint.
        let carries = !matches!(kind, VerdictKind::Success | VerdictKind::Failure | VerdictKind::Ignored);
        let hinted = verdict.retry_after(secs(1));
        assert_eq!((hinted.kind(), hinted.hint()), (kind, carries.then_some(secs(1))));
        assert_eq!(hinted.retry_after(None), verdict);
        let bare = Classification::from(hinted);
        assert_eq!((bare.verdict(), bare.label()), (hinted, kind.as_str()));
        let labelled = hinted.label("http_503");
        assert_eq!((labelled.verdict(), labelled.label()), (hinted, "http_503"));
    }
}

#[test]
fn an_outcome_keeps_its_marks_when_it_is_judged_anew() {
    let fails = || Outcome::<(), _>::new(Err(broken()), Verdict::transient());
    let marks = |outcome: &Outcome<(), io::Error>| (outcome.is_spent(), outcome.is_stalled(), outcome.is_substitute());
    assert_eq!(marks(&fails()), (false, false, false));
    assert_eq!(marks(&fails().spent()), (true, false, false));
    assert_eq!(marks(&fails().stalled()), (false, true, false));
    let judged = fails().spent().stalled().reclassified(Verdict::throttled().retry_after(secs(1)).label("http_429"));
    assert_eq!(marks(&judged), (true, true, false));
    assert_eq!((judged.verdict(), judged.label()), (Verdict::throttled().retry_after(secs(1)), "http_429"));
}

#[test]
fn whatever_it_was_judged_before_and_whatever_marks_it_has_an_outcome_has_the_verdict_it_was_given_last() {
    for (first, last) in EVERY_VERDICT.into_iter().flat_map(|first| EVERY_VERDICT.map(|last| (first, last))) {
        for (spent, stalled) in [(false, false), (true, false), (false, true), (true, true)] {
            let (first, last) = (first.retry_after(secs(2)), last.retry_after(secs(1)));
            let mut outcome = Outcome::<(), _>::new(Err(broken()), first);
            outcome = if spent { outcome.spent() } else { outcome };
            outcome = if stalled { outcome.stalled() } else { outcome };
            assert_eq!(outcome.verdict(), first);
            let judged = outcome.reclassified(last);
            assert_eq!(judged.verdict(), last, "{first:?} before, {spent}, {stalled}");
            assert_eq!((judged.is_spent(), judged.is_stalled(), judged.is_substitute()), (spent, stalled, false));
        }
    }
}

#[test]
fn names_are_the_same_if_their_letters_are_however_they_were_made() {
    let written = Name::from("users");
    for made in [Name::from("users"), Name::from("users".to_owned()), Name::from(Cow::Borrowed("users"))] {
        assert_eq!((&made, made.as_ref(), made.as_str()), (&written, "users", "users"));
        assert!(made == *"users" && made == "users");
        assert_eq!((made.to_string(), format!("{made:?}"), format!("{made:>7}")), {
            ("users".to_owned(), "\"users\"".to_owned(), "  users".to_owned())
        });
        // So either finds what is kept under the other.
        let hasher = RandomState::new();
        assert_eq!(hasher.hash_one(&made), hasher.hash_one(&written));
        assert_eq!(hasher.hash_one(&made), hasher.hash_one("users"));
    }
    let other = Name::from(Cow::<str>::Owned("orders".to_owned()));
    assert!(other != written && other != *"users" && other != "users");
    let hasher = RandomState::new();
    assert_ne!(hasher.hash_one(&other), hasher.hash_one(&written));
}

#[test]
fn a_configuration_error_says_where_and_what_and_keeps_the_first_place_that_it_was_given() {
    let nonsense = || ConfigError::new("probes", 0, "1 to 1000");
    let (users, orders, db) = (Name::from("users"), Name::from("orders"), Name::from("db"));
    let says = |error: &ConfigError, pipeline: Option<&Name>, policy: Option<&Name>, text: &str| {
        assert_eq!((error.pipeline(), error.policy()), (pipeline, policy));
        assert_eq!((error.field(), error.value(), error.accepted()), ("probes", "0", "1 to 1000"));
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), format!("ConfigError({text})"));
    };
    says(&nonsense(), None, None, "probes is 0; accepted: 1 to 1000");
    says(&nonsense().in_policy(&db), None, Some(&db), "policy `db`: probes is 0; accepted: 1 to 1000");
    let of_users = nonsense().in_pipeline(&users);
    says(&of_users, Some(&users), None, "pipeline `users`: probes is 0; accepted: 1 to 1000");
    let both = of_users.in_policy(&db).in_pipeline(&orders).in_policy(&orders);
    says(&both, Some(&users), Some(&db), "pipeline `users`, policy `db`: probes is 0; accepted: 1 to 1000");
}
