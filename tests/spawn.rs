//! A pipeline where services use it: in spawned tasks, structs, statics, traits and generic code.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "services spawn tasks; only the library does not")]

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{spawn, task::yield_now};
use withstand::{
    BoxPolicy, Bulkhead, CallOptions, CircuitBreaker, Classify, Context, Describe, Error, Fallback, Hedge, Operation,
    Outcome, Pipeline, Policy, Retry, StandardHedgedLayers, StandardLayers, Timeout, Verdict, layers,
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Client {
    users: HashMap<u32, String>,
}

impl Client {
    fn new() -> Self {
        Self { users: HashMap::from([(7, "Ada".to_owned())]) }
    }

    /// Borrows from its arguments and gives a borrow back.
    async fn get<'a>(&'a self, id: &u32) -> Result<&'a str, io::Error> {
        yield_now().await;
        self.users.get(id).map(String::as_str).ok_or_else(|| io::Error::other("no such user"))
    }
}

/// What a service keeps for each dependency: named types, no boxes.
struct Users {
    client: Client,
    pipeline: Pipeline<Layers>,
}

type Layers = layers![Timeout, Retry, Bulkhead, CircuitBreaker, Timeout];

impl Users {
    fn new() -> Self {
        Self { client: Client::new(), pipeline: Pipeline::standard("users").build().unwrap() }
    }

    async fn name_of(&self, id: u32) -> Result<&str, Error<io::Error>> {
        self.pipeline.call(|| self.client.get(&id)).await
    }
}

#[tokio::test]
async fn a_struct_names_its_pipeline_and_lends_its_results_inside_a_task() {
    let users = Arc::new(Users::new());
    let task = spawn(async move {
        let name = users.name_of(7).await?;
        Ok::<_, Error<io::Error>>(name.len())
    });
    assert_eq!(task.await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn arguments_and_results_are_borrowed_from_the_task() {
    let pipeline = Pipeline::standard_hedged("users").build().unwrap();
    let task = spawn(async move {
        let client = Client::new();
        let ids = [7, 7];
        let mut names = Vec::new();
        for id in &ids {
            names.push(pipeline.call(|| client.get(id)).await.unwrap());
            names.push(pipeline.call_with(CallOptions::new(), |_| client.get(id)).await.unwrap());
            names.push(pipeline.call(|| async { client.get(id).await }).await.unwrap());
            names.push(pipeline.call(async || client.get(id).await).await.unwrap());
            names.push(pipeline.forward(|| pipeline.outcome(|| client.get(id))).await.unwrap());
        }
        names.concat()
    });
    assert_eq!(task.await.unwrap(), "Ada".repeat(10));
}

#[tokio::test]
async fn a_guarded_future_borrows_from_the_task() {
    let pipeline = Pipeline::builder("users").timeout(SECOND).build().unwrap();
    let task = spawn(async move {
        let (client, id) = (Client::new(), 7);
        pipeline.guard(client.get(&id)).await.unwrap().to_owned()
    });
    assert_eq!(task.await.unwrap(), "Ada");
}

#[tokio::test]
async fn errors_may_borrow_too() {
    let retry = Retry::builder().build().unwrap();
    let task = spawn(async move {
        let question = "what is it?".to_owned();
        let error = retry.call(|| async { Err::<(), &str>(&question[..4]) }).await.unwrap_err();
        error.into_operation().map(str::to_owned)
    });
    assert_eq!(task.await.unwrap().as_deref(), Some("what"));
}

static STANDARD: LazyLock<Pipeline<StandardLayers>> = LazyLock::new(|| Pipeline::standard("static").build().unwrap());

#[tokio::test]
async fn a_static_pipeline_serves_all_tasks() {
    let tasks = (0..8_u32).map(|n| spawn(STANDARD.call(move || async move { Ok::<_, io::Error>(n) })));
    let mut sum = 0;
    for task in tasks.collect::<Vec<_>>() {
        sum += task.await.unwrap().unwrap();
    }
    assert_eq!(sum, 28);
}

#[tokio::test]
async fn an_arc_of_a_pipeline_serves_all_tasks() {
    let pipeline: Arc<Pipeline<StandardHedgedLayers>> = Arc::new(Pipeline::standard_hedged("arc").build().unwrap());
    let tasks = (0..8_u32).map(|n| {
        let pipeline = Arc::clone(&pipeline);
        spawn(async move { pipeline.call(|| async { Ok::<_, io::Error>(n) }).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
}

/// A trait of the service's own, whose methods go through a pipeline.
trait Directory: Send + Sync {
    fn name_of(&self, id: u32) -> impl Future<Output = Result<&str, Error<io::Error>>> + Send;
}

impl Directory for Users {
    fn name_of(&self, id: u32) -> impl Future<Output = Result<&str, Error<io::Error>>> + Send {
        self.pipeline.call(move || async move { self.client.get(&id).await })
    }
}

async fn greeting<D: Directory>(directory: &D, id: u32) -> String {
    directory.name_of(id).await.map_or_else(|error| error.to_string(), |name| format!("Hello, {name}!"))
}

#[tokio::test]
async fn a_trait_method_goes_through_a_pipeline_and_generic_code_calls_it() {
    let task = spawn(async move { greeting(&Users::new(), 7).await });
    assert_eq!(task.await.unwrap(), "Hello, Ada!");
}

/// Code that knows neither the layers nor the classifier.
async fn twice<P, C, T, E, F, Fut>(pipeline: &Pipeline<P, C>, operation: F) -> Result<(T, T), Error<E>>
where
    P: Policy<T, E>,
    C: Classify<T, E>,
    T: Send,
    E: Send,
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, E>> + Send,
{
    Ok((pipeline.call(&operation).await?, pipeline.call(&operation).await?))
}

#[tokio::test]
async fn generic_code_calls_any_pipeline() {
    let pipeline = Pipeline::standard("any").classify_errors(|_: &io::Error| Verdict::failure()).build().unwrap();
    let task = spawn(async move {
        let client = Client::new();
        twice(&pipeline, || client.get(&7)).await.unwrap() == ("Ada", "Ada")
    });
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn pipelines_nest_as_layers_and_as_operations() {
    let inner = Arc::new(Pipeline::standard("inner").build().unwrap());
    let patience = Timeout::builder(8 * SECOND).name("patience");
    let outer = Pipeline::builder("outer").timeout(patience).layer(Arc::clone(&inner)).build().unwrap();
    let outermost = Pipeline::builder("outermost").layer(&outer).build().unwrap();
    let client = Client::new();
    assert_eq!(outermost.call(|| client.get(&7)).await.unwrap(), "Ada");

    let task = spawn(async move {
        let client = Client::new();
        outer.forward(|| inner.outcome(|| client.get(&7))).await.unwrap().to_owned()
    });
    assert_eq!(task.await.unwrap(), "Ada");
}

#[tokio::test]
async fn layers_may_be_optional() {
    for on in [false, true] {
        let retry = on.then(|| Retry::builder().build().unwrap());
        let breaker = on.then(|| Arc::new(CircuitBreaker::builder().build().unwrap()));
        let pipeline = Pipeline::builder("optional").layer(retry).layer(breaker).build().unwrap();
        let task = spawn(async move {
            let client = Client::new();
            pipeline.call(|| client.get(&7)).await.unwrap().to_owned()
        });
        assert_eq!(task.await.unwrap(), "Ada");
    }
}

/// Types that borrow from the caller's stack pass through a policy whose type is erased.
#[tokio::test]
async fn an_erased_policy_takes_types_that_borrow() {
    async fn longest<'a>(policy: &BoxPolicy<&'a str, &'a str>, words: &'a [String]) -> Result<&'a str, Error<&'a str>> {
        let longest = || words.iter().map(String::as_str).max_by_key(|word| word.len()).ok_or("no words");
        Pipeline::builder("words").layer(policy).build().unwrap().call(|| async { longest() }).await
    }
    let words = ["a", "word", "or two"].map(str::to_owned);
    let policy = BoxPolicy::new(Timeout::new(SECOND).unwrap());
    assert_eq!(longest(&policy, &words).await, Ok("or two"));
    assert_eq!(longest(&policy, &[]).await, Err(Error::Operation("no words")));
}

#[tokio::test]
async fn an_erased_policy_is_chosen_at_run_time_and_moves_into_a_task() {
    for patient in [false, true] {
        let policy: BoxPolicy<u32, io::Error> = if patient {
            BoxPolicy::new(Retry::builder().build().unwrap())
        } else {
            BoxPolicy::new(Timeout::new(SECOND).unwrap())
        };
        let pipeline = Pipeline::builder("chosen").layer(policy).build().unwrap();
        assert_eq!(spawn(async move { pipeline.call(|| async { Ok(7) }).await }).await.unwrap().unwrap(), 7);
    }
}

/// Sixteen layers, most of them coroutines: without care that overflows the compiler's recursion limit in the crate that
/// calls them, which is this one.
#[tokio::test]
async fn sixteen_layers_compile_and_run() {
    let pipeline = Pipeline::builder("deep")
        .fallback(Fallback::value(0))
        .timeout(16 * SECOND)
        .retry(Retry::builder().name("a"))
        .layer(Passing)
        .timeout(8 * SECOND)
        .bulkhead(Bulkhead::builder().limit(9))
        .circuit_breaker(CircuitBreaker::builder())
        .hedge(Hedge::builder())
        .layer(Some(Passing))
        .timeout(4 * SECOND)
        .bulkhead(Bulkhead::builder().limit(8))
        .circuit_breaker(CircuitBreaker::builder())
        .layer(Arc::new(Passing))
        .retry(Retry::builder().name("b"))
        .timeout(2 * SECOND)
        .timeout(SECOND)
        .build()
        .unwrap();
    assert_eq!(pipeline.explain().layers().len(), 16);
    let task = spawn(async move {
        let seven = 7;
        let by_reference = &seven;
        pipeline
            .call(|| async move {
                yield_now().await;
                Ok::<_, io::Error>(*by_reference)
            })
            .await
    });
    assert_eq!(task.await.unwrap().unwrap(), 7);
}

/// A policy of one's own, written the plainest way.
struct Passing;

impl Describe for Passing {}

impl<T: Send, E: Send> Policy<T, E> for Passing {
    async fn run<Op: Operation<T, E>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, E> {
        op.attempt(cx).await
    }
}
