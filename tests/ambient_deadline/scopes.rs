//! A deadline without a call around.

use std::future::pending;

use futures::future::join;
use tokio::time::{Instant, sleep};
use withstand::{Deadline, Error, Scope, Timeout};

use crate::support::{ms, secs};

#[tokio::test(start_paused = true)]
async fn a_scope_by_itself_ends_nothing_but_calls() {
    let began = Instant::now();
    let inner = Timeout::new(secs(5)).unwrap();
    let scope = Deadline::after(ms(50)).scope(async {
        let call = inner.call(pending::<Result<(), ()>>).await;
        let ended = began.elapsed();
        sleep(secs(1)).await;
        (call, ended)
    });
    let (call, ended) = scope.await;
    assert!(matches!(call, Err(Error::Timeout(t)) if t.scope() == Scope::Deadline && t.limit() == ms(50)));
    assert_eq!((ended, began.elapsed()), (ms(50), ms(1_050)));
}

#[tokio::test(start_paused = true)]
async fn scopes_narrow_and_never_widen() {
    let now = Instant::now();
    let (near, far) = (Deadline::at(now + ms(50)), Deadline::at(now + ms(80)));
    for (outer, inner) in [(near, far), (far, near)] {
        let seen = outer.scope(async { inner.scope(async { Deadline::current() }).await }).await;
        assert_eq!(seen, Some(near));
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_inside_an_operation_narrows_its_deadline_and_its_calls_end_at_it() {
    let outer = Timeout::new(ms(100)).unwrap();
    let inner = Timeout::new(secs(5)).unwrap();
    for (scope, expected) in [(ms(30), ms(30)), (ms(300), ms(100))] {
        let began = Instant::now();
        let result = outer.call(|| Deadline::after(scope).scope(inner.call(pending::<Result<(), ()>>))).await;
        assert_eq!(began.elapsed(), expected);
        let ended_by_outer = matches!(&result, Err(Error::Timeout(_)));
        assert_eq!(ended_by_outer, expected == ms(100), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_ends_where_it_ends() {
    let look = async { Deadline::current() };
    let (inside, outside) = join(Deadline::after(ms(5)).scope(async { Deadline::current() }), look).await;
    assert!(inside.is_some());
    assert_eq!((outside, Deadline::current()), (None, None));
}
