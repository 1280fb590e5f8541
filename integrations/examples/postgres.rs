//! A Postgres client behind a pipeline: how to wrap a client that this crate has no adapter for.
//!
//! ```text
//! cargo run --manifest-path integrations/Cargo.toml --example postgres            # some seconds, then it ends
//! cargo run --manifest-path integrations/Cargo.toml --example postgres -- watch   # until it is interrupted
//! ```
//!
//! It takes a classifier, `postgres/classify.rs`, and in `postgres/database.rs` a policy of one's own, which lends each
//! attempt a connection that lives. The server is that of `DATABASE_URL`, or else of `PGHOST`, `PGPORT`, `PGUSER`,
//! `PGPASSWORD` and `PGDATABASE`, or else the local one. The faults are real, and it takes no administrator to make them:
//! a role may end its own connections. To see a server stop and start again, `watch`.

#[path = "postgres/classify.rs"]
mod classify;
#[path = "postgres/database.rs"]
mod database;

use std::{
    collections::HashSet,
    env,
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use database::{BREAK, CONNECTIONS, Database, TO_CONNECT, ms};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{
    Client, Config, Error as PgError, IsolationLevel, NoTls,
    config::Host,
    error::{DbError, SqlState},
};
use withstand::{
    Error,
    Idempotency::{Safe, Unsafe},
};

/// A number out of the database.
async fn number(client: &Client, sql: &str) -> Result<i64, PgError> {
    client.query_one(sql, &[]).await.map(|row| row.get(0))
}

/// The server ends this connection, as when an administrator restarts it.
async fn die(client: &Client) -> Result<(), PgError> {
    client.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await
}

/// An error in the server's own words, if it is one of the server.
fn told(error: &Error<PgError>) -> String {
    let said = error.operation().and_then(PgError::as_db_error).map(DbError::message);
    said.map_or_else(|| format!("{error:#}"), str::to_owned)
}

/// The scenes. Each says what is to be seen, and asserts it.
async fn tell(database: &Arc<Database>, table: &str) -> Result<(), Box<dyn StdError>> {
    let read = async |sql: &str| database.call(Safe, |client, _| async move { number(&client, sql).await }).await;
    let rows = format!("SELECT count(*) FROM {table}");
    let run = async |sql: &str| database.call(Unsafe, |client, _| async move { client.batch_execute(sql).await }).await;

    let mut reads = JoinSet::new();
    for _ in 0..50 {
        let database = Arc::clone(database);
        reads.spawn(async move {
            let slow = "SELECT pg_backend_pid()::bigint FROM pg_sleep(0.01)";
            database.call(Safe, |client, _| async move { number(&client, slow).await }).await
        });
    }
    let backends: HashSet<i64> = reads.join_all().await.into_iter().collect::<Result<_, _>>()?;
    println!("50 reads at once                        all answered, over {} connections", backends.len());
    assert!(backends.len() <= CONNECTIONS, "the bulkhead is the limit of the pool");

    let own = "application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
    let killed = read(&format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {own}")).await?;
    sleep(ms(200)).await;
    let attempts = AtomicU32::new(0);
    for _ in 0..CONNECTIONS {
        let count = |client: database::Lent, _| {
            attempts.fetch_add(1, Relaxed);
            async move { number(&client, "SELECT 1::bigint").await }
        };
        database.call(Safe, count).await?;
    }
    println!("{killed} connections end while they are idle   nobody notices: no attempt was made on them");
    assert_eq!(attempts.load(Relaxed), CONNECTIONS as u32);

    let answer = database.call(Safe, |client, attempt| async move {
        if attempt == 1 {
            die(&client).await?;
        }
        number(&client, "SELECT 42::bigint").await
    });
    println!("one ends under a read                   read again on another: {}", answer.await?);

    // The row is there, and then the connection ends: nobody has heard of it.
    let insert = async |idempotency, sql: &str| {
        let work = |client: database::Lent, attempt| async move {
            client.batch_execute(sql).await?;
            if attempt == 1 { die(&client).await } else { Ok(()) }
        };
        database.call(idempotency, work).await
    };
    let plain = format!("INSERT INTO {table} (amount) VALUES (1)");
    let error = insert(Unsafe, &plain).await.unwrap_err();
    println!("one ends under an INSERT                not inserted again: {}", told(&error));
    assert_eq!(read(&rows).await?, 1);

    let keyed = format!("INSERT INTO {table} (key, amount) VALUES ('order-7', 1) ON CONFLICT (key) DO NOTHING");
    insert(Safe, &keyed).await?;
    println!("... with a key and ON CONFLICT          inserted again, {} rows all the same", read(&rows).await?);
    assert_eq!(read(&rows).await?, 2);

    // Between its reading and its writing another one writes: as if it had never begun.
    let (raise, intrude) = (&format!("UPDATE {table} SET amount = amount + 1"), &run);
    let attempts = database.call(Unsafe, |mut client, attempt| async move {
        let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await?;
        transaction.query("SELECT 1", &[]).await?;
        if attempt == 1 {
            intrude(raise).await.expect("an update of its own");
        }
        transaction.batch_execute(raise).await?;
        transaction.commit().await.map(|()| attempt)
    });
    let (attempts, amount) = (attempts.await?, read(&format!("SELECT min(amount) FROM {table}")).await?);
    println!("a transaction that gets in the way      repeated as a whole: {attempts} attempts, amount {amount}");
    assert_eq!((attempts, amount), (2, 3));

    let plainly_keyed = keyed.split(" ON").next().unwrap_or_default();
    let error = run(plainly_keyed).await.unwrap_err();
    let code = error.operation().and_then(PgError::code).cloned();
    println!("a key that is there already             an answer like any other: {}", told(&error));
    assert_eq!(code, Some(SqlState::UNIQUE_VIOLATION));

    let began = Instant::now();
    let error = run("SELECT pg_sleep(4) /* too long */").await.unwrap_err();
    let took = began.elapsed().as_millis();
    // The server was told to stop it, and does so at once, but not at the same instant.
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* too ' || 'long */' AND state = 'active'";
    while read(runs).await? > 0 {
        sleep(ms(10)).await;
    }
    let gone = began.elapsed().as_millis();
    println!("a query of 4 s                          given up after {took} ms, gone from the server after {gone} ms");
    assert!(error.is_timeout() && gone < 2000, "{}", told(&error));

    let mut calls = (0, 0);
    let refused = loop {
        let died = database.call(Unsafe, |client, _| async move { die(&client).await });
        match died.await {
            Err(Error::Rejected(rejection)) => break rejection,
            _ => calls.0 += 1,
        }
        assert!(calls.0 < 500, "the circuit opens");
    };
    let began = Instant::now();
    while read("SELECT 1::bigint").await.is_err() {
        calls.1 += 1;
        sleep(ms(10)).await;
    }
    println!("every connection ends, {} times         {refused}", calls.0);
    println!("all is well again                       {} calls refused, answers after {:?}", calls.1, began.elapsed());
    assert!(began.elapsed() < BREAK * 4);
    Ok(())
}

/// Asks again and again, and says when the answer changes: for who stops and starts the server meanwhile.
async fn watch(database: &Database) -> Result<(), Box<dyn StdError>> {
    let (began, mut well, mut failed, mut refused) = (Instant::now(), false, 0, 0);
    loop {
        let answer = database.call(Safe, |client, _| async move { number(&client, "SELECT 42::bigint").await }).await;
        let at = began.elapsed();
        match &answer {
            Ok(number) if !well => println!("{at:>10.2?}  {number}; {failed} calls had failed, {refused} been refused"),
            Err(error) if well => println!("{at:>10.2?}  {}", told(error)),
            _ => {}
        }
        match answer {
            Ok(_) => (failed, refused) = (0, 0),
            Err(Error::Rejected(_)) => refused += 1,
            Err(_) => failed += 1,
        }
        well = (failed, refused) == (0, 0);
        sleep(ms(50)).await;
    }
}

/// Where the server is.
fn server() -> Result<Config, PgError> {
    let mut config = match env::var("DATABASE_URL") {
        Ok(url) => url.parse()?,
        Err(_) => Config::new(),
    };
    let or_else = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    if config.get_hosts().is_empty() {
        config.host(or_else("PGHOST", "localhost")).port(or_else("PGPORT", "5432").parse().unwrap_or(5432));
        config.user(or_else("PGUSER", &or_else("USER", "postgres"))).password(or_else("PGPASSWORD", ""));
        config.dbname(or_else("PGDATABASE", "postgres"));
    }
    // To find its own connections again among those of others.
    config.application_name(format!("withstand-example-{}", std::process::id()));
    Ok(config)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let config = server()?;
    let at = match (config.get_hosts(), config.get_ports()) {
        ([Host::Tcp(name), ..], [port, ..]) => format!("{name}:{port}"),
        (hosts, _) => format!("{hosts:?}"),
    };
    let why_not = match timeout(TO_CONNECT, config.connect(NoTls)).await {
        Ok(Ok(_it_is_there)) => None,
        Ok(Err(error)) => Some(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        Err(_elapsed) => Some("no answer".to_owned()),
    };
    if let Some(why) = why_not {
        println!("Skipped: no Postgres server at {at} ({why}); set DATABASE_URL");
        return Ok(());
    }
    println!("Postgres at {at}\n");
    let database = Arc::new(Database::new(config)?);
    if env::args().any(|argument| argument == "watch") {
        return watch(&database).await;
    }
    let table = format!("withstand_example_{}", std::process::id());
    let run = async |sql: &str| database.call(Unsafe, |client, _| async move { client.batch_execute(sql).await }).await;
    run(&format!("CREATE TABLE {table} (key text UNIQUE, amount bigint NOT NULL)")).await?;
    let told = tell(&database, &table).await;
    run(&format!("DROP TABLE {table}")).await?;
    told
}
