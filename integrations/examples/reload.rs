//! A pipeline from a file, changed while calls run, and an admin page to look at it and to operate it.
//!
//! ```console
//! $ cargo run --manifest-path integrations/Cargo.toml --example reload
//! ```
//!
//! It ends by itself. `GET /pipelines` gives the state of all pipelines as JSON, `POST /pipelines/{name}/isolate`,
//! `release` and `reset` operate the circuits, and `PUT /config` takes settings as TOML, all or nothing.

use std::{
    fs,
    io::Error,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router, extract,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use reqwest::{Client, Method};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use withstand::{Event, Level, Pipeline, PipelineConfig, Registry, Verdict};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Anything> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/reload.toml");
    let file = fs::read_to_string(file)?;
    let config: PipelineConfig = toml::from_str(&file)?;
    let users = Pipeline::from_config(config)
        .classify_errors(|_: &Error| Verdict::transient())
        .observer(|event: &Event<'_>| {
            if event.level() == Level::Info {
                println!("    {event}");
            }
        })
        .build()?;
    println!("{}\n", users.explain());

    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let page = format!("http://{}", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    tasks.spawn(async { axum::serve(listener, admin()).await });

    let load = Arc::new(Load::default());
    let calls = tokio::spawn(load.clone().run(Arc::new(users)));

    println!("16 callers at once, permits for 8:");
    sleep(Duration::from_millis(300)).await;
    load.report();

    println!("the file is edited and sent: more permits, fewer attempts");
    let edited = file.replace("limit = 8", "limit = 16").replace("max_attempts = 3", "max_attempts = 2");
    let changes = request(Method::PUT, &format!("{page}/config"), edited).await?;
    print!("{changes}");
    assert_eq!(changes, "    retry: max_attempts 3 -> 2\n    bulkhead: limit 8 -> 16\n");
    sleep(Duration::from_millis(300)).await;
    load.report();

    println!("an edit that cannot work changes nothing");
    let nonsense = file.replace("limit = 8", "limit = 1").replace("\"300ms\"", "\"3s\"");
    print!("{}", request(Method::PUT, &format!("{page}/config"), nonsense).await?);
    let typo = file.replace("queue", "qeue");
    print!("{}", request(Method::PUT, &format!("{page}/config"), typo).await?);

    println!("an operator holds the circuit open, and lets it go");
    request(Method::POST, &format!("{page}/pipelines/users-api/isolate"), String::new()).await?;
    sleep(Duration::from_millis(100)).await;
    load.report();
    request(Method::POST, &format!("{page}/pipelines/users-api/release"), String::new()).await?;

    let seen = request(Method::GET, &format!("{page}/pipelines"), String::new()).await?;
    let seen: serde_json::Value = serde_json::from_str(&seen)?;
    let circuit = &seen[0]["layers"][3];
    println!("{}: {} {}", seen[0]["pipeline"], circuit["name"], circuit["state"]["state"]);
    assert_eq!(seen[0]["layers"][2]["state"]["limit"], 16, "what was refused has changed nothing");

    load.stop.store(true, Relaxed);
    calls.await??;
    Ok(())
}

/// The page for operators. Whoever can reach it can take the service down: put it where only they can.
fn admin() -> Router {
    let all = || async {
        let json = serde_json::to_string_pretty(&Registry::global().snapshot());
        json.map(|json| ([(CONTENT_TYPE, "application/json")], json)).map_err(refused)
    };
    let operate = |extract::Path((name, action)): extract::Path<(String, String)>| async move {
        let registry = Registry::global();
        let done = match action.as_str() {
            "isolate" => registry.isolate(&name),
            "release" => registry.release(&name),
            "reset" => registry.reset(&name),
            _ => return StatusCode::NOT_FOUND.into_response(),
        };
        done.map_or_else(refused, IntoResponse::into_response)
    };
    let change = |settings: String| async move {
        let config: PipelineConfig = toml::from_str(&settings).map_err(refused)?;
        let changes = Registry::global().update(&config).map_err(refused)?;
        Ok::<_, Response>(changes.iter().map(|change| format!("    {change}\n")).collect::<String>())
    };
    Router::new()
        .route("/pipelines", get(all))
        .route("/pipelines/{name}/{action}", post(operate))
        .route("/config", put(change))
}

fn refused(error: impl std::error::Error) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("    refused: {}\n", error.to_string().trim_end())).into_response()
}

async fn request(method: Method, url: &str, body: String) -> Result<String, reqwest::Error> {
    Client::new().request(method, url).body(body).send().await?.text().await
}

/// 16 callers of a service that answers within 20 ms, nine times of ten.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    attempts: AtomicU32,
    answered: AtomicU32,
    refused: AtomicU32,
}

impl Load {
    async fn run<P, C>(self: Arc<Self>, users: Arc<Pipeline<P, C>>) -> Result<(), Anything>
    where
        P: withstand::Policy<(), Error> + 'static,
        C: withstand::Classify<(), Error> + 'static,
    {
        let mut callers = JoinSet::new();
        for _ in 0..16 {
            let (load, users) = (self.clone(), users.clone());
            callers.spawn(async move {
                while !load.stop.load(Relaxed) {
                    let answer = users.call(|| async {
                        sleep(Duration::from_millis(20)).await;
                        if load.attempts.fetch_add(1, Relaxed) % 10 == 9 { Err(Error::other("busy")) } else { Ok(()) }
                    });
                    match answer.await {
                        Ok(()) => load.answered.fetch_add(1, Relaxed),
                        Err(_) => {
                            sleep(Duration::from_millis(10)).await;
                            load.refused.fetch_add(1, Relaxed)
                        }
                    };
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller?;
        }
        Ok(())
    }

    fn report(&self) {
        let (answered, refused) = (self.answered.swap(0, Relaxed), self.refused.swap(0, Relaxed));
        println!("    {answered} answered, {refused} failed or refused");
    }
}
