//! A Postgres client behind a pipeline: a file to copy.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::timeout};
use tokio_postgres::{CancelToken, Client, Config, Error as PgError, NoTls};
use withstand::{
    Bulkhead, CallOptions, CircuitBreaker, Classification, Classify, ConfigError, Context, Describe, Error, Frame,
    Idempotency, LayerInfo, Operation, Outcome, Pipeline, Policy, Retry, Timeout, Verdict, layers,
};

use super::classify::{classify, classify_connect};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// As many as the server can spare for this process.
pub(crate) const CONNECTIONS: usize = 4;
/// How long a break lasts.
pub(crate) const BREAK: Duration = ms(300);
/// To open a connection: socket, handshake and password, of which `connect_timeout` is about the first alone.
pub(crate) const TO_CONNECT: Duration = ms(1000);
/// To ask the server to cancel a statement.
const TO_CANCEL: Duration = ms(500);

/// A connection, and how to cancel what runs on it.
struct Connection {
    client: Arc<tokio::sync::Mutex<Client>>,
    cancel: CancelToken,
}

/// What an attempt works with. A transaction needs it to itself.
pub(crate) type Lent = OwnedMutexGuard<Client>;

tokio::task_local! {
    /// The connection of the attempt that runs. Each has its own, however many run at once.
    static LENT: Arc<tokio::sync::Mutex<Client>>;
}

/// A policy: gives each attempt a connection that lives, and keeps those that are as good as new afterwards. It needs no
/// limit of its own: the bulkhead around it lets no more calls in than there may be connections.
pub(crate) struct Connections {
    config: Config,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    /// One that was kept. Those whose server has gone since are dropped here, before anything is sent on them.
    fn kept(&self) -> Option<Connection> {
        let lives = |idle: &Connection| idle.client.try_lock().is_ok_and(|client| !client.is_closed());
        std::iter::from_fn(|| self.idle().pop()).find(lives)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Connection, PgError> {
        let (client, io) = self.config.connect(NoTls).await?;
        // It reads and writes for the client, and ends with it.
        drop(tokio::spawn(io));
        // A server notices late that a caller went away. This limits what such a one has left behind.
        client.batch_execute("SET statement_timeout = '5s'").await?;
        Ok(Connection { cancel: client.cancel_token(), client: Arc::new(tokio::sync::Mutex::new(client)) })
    }

    /// One that is kept or new; or what becomes of an attempt that gets none. Nothing was sent: it is safe to repeat.
    async fn lend<T>(&self, cx: Context<'_>) -> Result<Connection, Outcome<T, PgError>> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let limit = Frame::with_limit(cx, TO_CONNECT);
        match timeout(TO_CONNECT, self.open()).await {
            Ok(Ok(new)) => Ok(new),
            Ok(Err(error)) => {
                let verdict = classify_connect(&error);
                Err(Outcome::new(Err(Error::Operation(error)), verdict))
            }
            Err(_too_late) => {
                Err(Outcome::new(Err(limit.timed_out().into()), Verdict::unreached().label("pg_connect")))
            }
        }
    }
}

impl<T: Send> Policy<T, PgError> for Connections {
    async fn run<Op: Operation<T, PgError>>(&self, op: Op, cx: Context<'_>) -> Outcome<T, PgError> {
        let connection = match self.lend(cx).await {
            Ok(connection) => connection,
            Err(outcome) => return outcome,
        };
        // If the caller goes away, all this is dropped where it stands, the connection with it.
        let outcome = LENT.scope(Arc::clone(&connection.client), op.attempt(cx)).await;
        match outcome.verdict() {
            // The timeout inside has dropped the statement, and the server still works on it. It is asked to stop while
            // the caller's time runs and its permit is held: so nothing happens behind the caller's back, and no more
            // statements run than there are permits. Then the connection goes: a cancellation that comes late would hit
            // the next statement on it.
            _ if outcome.result.as_ref().is_err_and(Error::is_timeout) => {
                let _or_else_statement_timeout = timeout(TO_CANCEL, connection.cancel.cancel_query(NoTls)).await;
            }
            // All is well with it, whatever became of the statement.
            Verdict::Success | Verdict::Throttled { .. } => self.idle().push(connection),
            // In doubt a new one is opened.
            _ => drop(connection),
        }
        outcome
    }
}

/// For `explain()`, and for the breaker: how long a probe may take is the sum of what is inside it.
impl Describe for Connections {
    fn describe(&self, out: &mut Vec<LayerInfo>) {
        out.push(LayerInfo::custom("connections").attempts(1).added_time(TO_CONNECT + TO_CANCEL));
    }
}

/// A classifier with a name, for the type of a struct's field.
pub(crate) struct ByCode;
impl<T> Classify<T, PgError> for ByCode {
    fn classify(&self, result: Result<&T, &PgError>) -> Classification {
        match result {
            Ok(_) => Verdict::success().into(),
            Err(error) => classify(error),
        }
    }
}

type Policies = layers![Timeout, Retry, Bulkhead, CircuitBreaker, Connections, Timeout];

/// What the rest of the service sees of all this.
pub(crate) struct Database {
    pipeline: Pipeline<Policies, ByCode>,
}

impl Database {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let connections = Connections { config, idle: Mutex::default() };
        let pipeline = Pipeline::builder("postgres")
            .timeout(ms(4000))
            .retry(Retry::builder())
            .bulkhead(Bulkhead::builder().limit(CONNECTIONS).queue(100).max_wait(ms(1000)))
            .circuit_breaker(CircuitBreaker::builder().time_window(ms(1000)).open_for(BREAK).max_open_for(BREAK))
            .layer(connections)
            .timeout(ms(400))
            .classifier(ByCode)
            .build()?;
        Ok(Self { pipeline })
    }

    /// `work` is given a connection and the number of its attempt.
    pub(crate) async fn call<T: Send, Fut: Future<Output = Result<T, PgError>> + Send>(
        &self,
        idempotency: Idempotency,
        work: impl Fn(Lent, u32) -> Fut + Send + Sync,
    ) -> Result<T, Error<PgError>> {
        let work = &work;
        let options = CallOptions::new().idempotency(idempotency);
        let attempt = |attempt: withstand::Attempt| async move {
            let lent = LENT.with(Arc::clone).lock_owned().await;
            work(lent, attempt.number()).await
        };
        self.pipeline.call_with(options, attempt).await
    }
}
