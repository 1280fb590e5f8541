//! A pipeline among the layers of tower, outside of them and inside.

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    limit::{ConcurrencyLimit, RateLimit, rate::Rate},
    load_shed::{LoadShed, error::Overloaded},
    service_fn,
    timeout::error::Elapsed,
};
use withstand::{
    Backoff, Bulkhead, CircuitBreaker, Error, Jitter, Pipeline, Reason, Rejection, Retry, Verdict, tower::PipelineLayer,
};

use crate::ms;

/// A service that takes 100 ms, and the most calls of it that ran at once.
fn slow()
-> (impl Service<u32, Response = u32, Error = Infallible, Future: Send> + Clone + Send + 'static, Arc<AtomicUsize>) {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let service = service_fn(move |number: u32| {
        let (running, most) = (running.clone(), most.clone());
        async move {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            let _running = Running(running);
            sleep(ms(100)).await;
            Ok::<_, Infallible>(number)
        }
    });
    (service, seen)
}

/// The ends of so many calls that begin at once, in the order of their beginning, and when each came.
async fn at_once<S>(service: &S, calls: u32) -> Vec<(Result<u32, S::Error>, Duration)>
where
    S: Service<u32, Response = u32, Future: Send, Error: Send> + Clone + Send + 'static,
{
    let started = Instant::now();
    let calls: Vec<_> = (0..calls)
        .map(|number| {
            let call = service.clone().oneshot(number);
            tokio::spawn(async move { (call.await, started.elapsed()) })
        })
        .collect();
    let mut ends = Vec::new();
    for call in calls {
        ends.push(call.await.unwrap());
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_inside_is_waited_for_within_the_attempt_and_idle_clones_hoard_none_of_it() {
    let (slow, most) = slow();
    let pipeline = Pipeline::builder("inside").timeout(ms(250)).build().unwrap();
    let service = PipelineLayer::guard(pipeline).layer(ConcurrencyLimit::new(slow, 1));
    let mut idle = vec![service.clone(); 5];
    for clone in &mut idle {
        poll_fn(|cx| clone.poll_ready(cx)).await.unwrap();
    }
    let ends = at_once(&service, 4).await;
    assert_eq!(ends[0], (Ok(0), ms(100)));
    assert_eq!(ends[1], (Ok(1), ms(200)));
    for (end, at) in &ends[2..] {
        assert!(end.as_ref().is_err_and(Error::is_timeout));
        assert_eq!(*at, ms(250));
    }
    assert_eq!(service.oneshot(9).await, Ok(9), "those that timed out have left the queue");
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_outside_is_waited_for_before_the_call_begins() {
    let (slow, most) = slow();
    let pipeline = Pipeline::builder("outside").timeout(ms(150)).build().unwrap();
    let service = ServiceBuilder::new().concurrency_limit(1).layer(PipelineLayer::guard(pipeline)).service(slow);
    let ends = at_once(&service, 3).await;
    assert_eq!(ends, [(Ok(0), ms(100)), (Ok(1), ms(200)), (Ok(2), ms(300))], "the time of each began with it");
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_makes_of_a_service_that_is_not_clone_one_that_attempts_can_share() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let flaky = service_fn(move |number: u32| {
        let failed = counted.fetch_add(1, SeqCst) == 0;
        async move { if failed { Err(BoxError::from("flaky")) } else { Ok(number) } }
    });
    let limited = RateLimit::new(flaky, Rate::new(1, ms(1000))); // not `Clone`
    let backoff = Backoff::constant(ms(10)).jitter(Jitter::None);
    let pipeline = Pipeline::builder("buffered").retry(Retry::builder().backoff(backoff)).build().unwrap();
    let service = PipelineLayer::new(pipeline).layer(Buffer::new(limited, 1));
    // Clones of a buffer that were told that they are ready hold all its places; ours hold none.
    let mut idle = vec![service.clone(); 5];
    for clone in &mut idle {
        poll_fn(|cx| clone.poll_ready(cx)).await.unwrap();
    }
    let started = Instant::now();
    assert_eq!(service.oneshot(7).await.unwrap(), 7);
    assert_eq!((calls.load(SeqCst), started.elapsed()), (2, ms(1000)), "the second attempt has waited for its turn");
}

#[tokio::test(start_paused = true)]
async fn load_shedding_inside_is_a_rejection_if_the_classifier_says_so_and_no_failure_of_the_service() {
    let (slow, _) = slow();
    let breaker =
        Arc::new(CircuitBreaker::builder().consecutive_failures(1).consecutive_span(Duration::ZERO).build().unwrap());
    let pipeline = Pipeline::builder("shedding")
        .circuit_breaker(breaker.clone())
        .classify_errors(|error: &BoxError| match error.is::<Overloaded>() {
            true => Verdict::rejected(),
            false => Verdict::transient(),
        })
        .build()
        .unwrap();
    let service = PipelineLayer::guard(pipeline).layer(LoadShed::new(ConcurrencyLimit::new(slow, 1)));
    let ends = at_once(&service, 3).await;
    assert_eq!(*ends[0].0.as_ref().unwrap(), 0);
    for (end, at) in &ends[1..] {
        assert!(end.as_ref().unwrap_err().operation().unwrap().is::<Overloaded>());
        assert_eq!(*at, ms(0));
    }
    assert_eq!(breaker.state().as_str(), "closed");
}

#[tokio::test(start_paused = true)]
async fn load_shedding_outside_never_sheds_and_a_bulkhead_does() {
    let (slow, most) = slow();
    let pipeline = Pipeline::builder("full").bulkhead(Bulkhead::builder().limit(1)).build().unwrap();
    let service =
        ServiceBuilder::new().load_shed().map_err(Error::boxed).layer(PipelineLayer::guard(pipeline)).service(slow);
    let ends = at_once(&service, 3).await;
    assert_eq!(*ends[0].0.as_ref().unwrap(), 0);
    for (end, at) in &ends[1..] {
        let error = end.as_ref().unwrap_err().downcast_ref::<Error<Infallible>>().unwrap();
        assert_eq!(error.rejection().map(Rejection::reason), Some(Reason::BulkheadFull));
        assert_eq!(*at, ms(0));
    }
    assert_eq!(most.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn layers_with_boxed_errors_stand_on_both_sides_and_each_error_is_found_in_the_box() {
    let (slow, _) = slow();
    let each = |outside: u64, inside: u64, own: u64| {
        let pipeline = Pipeline::builder("boxed").timeout(ms(own)).build().unwrap();
        ServiceBuilder::new()
            .buffer(4)
            .timeout(ms(outside))
            .map_err(Error::boxed)
            .layer(PipelineLayer::guard(pipeline))
            .timeout(ms(inside))
            .service(slow.clone())
    };
    assert_eq!(each(300, 300, 300).oneshot(7).await.unwrap(), 7);
    assert!(each(50, 300, 300).oneshot(7).await.unwrap_err().is::<Elapsed>(), "that of the layer outside");
    assert!(each(300, 50, 300).oneshot(7).await.unwrap_err().is::<Elapsed>(), "that of the layer inside, as it was");
    let own = each(300, 300, 50).oneshot(7).await.unwrap_err();
    assert!(own.downcast_ref::<Error<Infallible>>().is_some_and(Error::is_timeout), "{own}");
}
