//! An async web service that embeds the library: backups as tracked tasks, a health endpoint, an orderly end on SIGTERM.
//!
//! ```text
//! cargo run --example service                        a demonstration: starts the service, uses it, ends it by SIGTERM
//! cargo run --example service -- 127.0.0.1:8080 URL  serves until SIGTERM or SIGINT
//!
//! POST /backups/{series}?megabytes=64                begins a backup of generated rows; 202 and its id
//! GET  /backups                                      what is committed
//! GET  /health                                       what runs now, and how far it is; 503 once it is to end
//! ```

#![allow(clippy::print_stdout, reason = "examples print what they do")]
#![allow(clippy::disallowed_methods, reason = "a service spawns where it likes; these tasks are tracked")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vdstream::backup::{self, Backup, BackupId, BackupOptions, Store};
use vdstream::stream::DeviceWriter;
use vdstream::{Error, ErrorKind, Result};

type Failure = (StatusCode, String);

/// What the handlers share.
#[derive(Clone)]
struct Service {
    store: Store,
    /// Every backup is one of these tasks: the end of the service waits for them.
    tasks: TaskTracker,
    /// Says that the service ends, and no backup may go on.
    stop: CancellationToken,
    /// Bytes written so far, of each backup that runs.
    running: Arc<Mutex<BTreeMap<BackupId, u64>>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(address), Some(url)) => {
            let listener = TcpListener::bind(address).await?;
            println!("listening at {}", listener.local_addr()?);
            serve(listener, Service::new(Store::from_url(&url)?)).await
        }
        _ => demonstrate().await,
    }
}

impl Service {
    fn new(store: Store) -> Self {
        Self { store, tasks: TaskTracker::new(), stop: CancellationToken::new(), running: Arc::default() }
    }

    /// Waits until no backup and nothing in the background runs any more.
    async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.wait_idle().await;
    }
}

async fn serve(listener: TcpListener, service: Service) -> Result<()> {
    let router = Router::new()
        .route("/backups", get(committed))
        .route("/backups/{series}", post(begin))
        .route("/health", get(health))
        .with_state(service.clone());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked_to_end = {
        let service = service.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // First no more backups. Until they are gone it still answers, so that who asks for its health sends nothing more here.
            service.stop.cancel();
            service.drained().await;
        }
    };
    // Then no new requests, and then what a last one may have begun before it knew.
    axum::serve(listener, router).with_graceful_shutdown(asked_to_end).await?;
    service.drained().await;
    println!("the service has ended");
    Ok(())
}

/// Begins a backup of two stripes and answers at once; the backup goes on as a task.
async fn begin(
    State(service): State<Service>,
    Path(series): Path<String>,
    Query(query): Query<BTreeMap<String, u64>>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    if service.stop.is_cancelled() {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the service ends".to_owned()));
    }
    let megabytes = query.get("megabytes").copied().unwrap_or(1);
    let backup = Backup::begin(&service.store, &series, BackupOptions::default().stripes(2)).await.map_err(failure)?;
    let id = backup.id();
    service.running.lock().expect("no panic while it is held").insert(id, 0);
    service.tasks.spawn({
        let service = service.clone();
        async move {
            match run(&service, backup, megabytes).await {
                Ok(report) => println!("{series}: committed {} of {} bytes", id, report.manifest.raw_bytes()),
                Err(error) => println!("{series}: no backup {id}: {}", error.report()),
            }
            service.running.lock().expect("no panic while it is held").remove(&id);
        }
    });
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))))
}

/// Feeds every stripe, then commits; or aborts, because one failed or the service ends.
async fn run(service: &Service, mut backup: Backup, megabytes: u64) -> Result<backup::BackupReport> {
    let id = backup.id();
    let writers = backup.take_writers()?;
    let stripes = writers.into_iter().map(|writer| produce(service, id, writer, megabytes));
    let fed = tokio::select! {
        fed = futures::future::try_join_all(stripes) => fed.map(drop),
        () = service.stop.cancelled() => Err(Error::new(ErrorKind::Aborted, "the service ends")),
    };
    match fed {
        Ok(()) => backup.commit().await,
        Err(reason) => {
            // What could not be removed is told beside the reason, and never in its place.
            if let Err(left) = backup.abort(reason.clone()).await {
                println!("the clean-up of {id} is not complete: {}", left.report());
            }
            Err(reason)
        }
    }
}

async fn produce(service: &Service, id: BackupId, mut writer: DeviceWriter, megabytes: u64) -> Result<()> {
    let rows = vec![b'r'; 1 << 20];
    for _ in 0..megabytes {
        writer.write_all(&rows).await?;
        *service.running.lock().expect("no panic while it is held").entry(id).or_default() += rows.len() as u64;
    }
    // Only a writer that was shut down is complete: a task that is dropped half-way commits nothing.
    Ok(writer.shutdown().await?)
}

async fn committed(State(service): State<Service>) -> Result<Json<Value>, Failure> {
    let listing = backup::list(&service.store, None).await.map_err(failure)?;
    Ok(Json(json!({ "backups": listing.backups })))
}

async fn health(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let running = service.running.lock().expect("no panic while it is held").clone();
    let is_healthy = !service.stop.is_cancelled();
    let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "healthy": is_healthy, "running": running })))
}

/// What the caller of the service should do next decides the status.
fn failure(error: Error) -> Failure {
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Throttled | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.report())
}

/// Two backups at once, a look at their health, then the end while a third one runs.
async fn demonstrate() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = directory.path().to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "a path that is no text"))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = Service::new(Store::from_url(url)?);
    let tasks = service.tasks.clone();
    let service = tokio::spawn(serve(listener, service));

    let (orders, stock) = tokio::try_join!(
        request(address, "POST", "/backups/orders?megabytes=16"),
        request(address, "POST", "/backups/stock?megabytes=8"),
    )?;
    println!("begun: {} {}", orders.1, stock.1);
    while request(address, "GET", "/health").await?.1["running"] != json!({}) {
        tokio::task::yield_now().await;
    }
    let (_, listed) = request(address, "GET", "/backups").await?;
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(2), "{listed}");

    request(address, "POST", "/backups/endless?megabytes=1000000").await?;
    // The end waits for this as for a task.
    let held = tasks.token();
    let terminated = std::process::Command::new("kill").arg(std::process::id().to_string()).status()?;
    assert!(terminated.success());
    // While it ends it says that it is not healthy.
    while request(address, "GET", "/health").await?.0 == 200 {
        tokio::task::yield_now().await;
    }
    let (status, health) = request(address, "GET", "/health").await?;
    assert_eq!((status, &health["healthy"]), (503, &json!(false)), "{health}");
    drop(held);
    service.await.map_err(|error| Error::new(ErrorKind::Internal, "the service panicked").with_source(error))??;

    let left = backup::list(&Store::from_url(url)?, None).await?;
    assert_eq!((left.backups.len(), left.uncommitted.len()), (2, 0), "the third left nothing");
    Ok(())
}

/// One request of HTTP/1.1 over a connection of its own; status and JSON of the answer.
async fn request(address: std::net::SocketAddr, method: &str, path: &str) -> Result<(u16, Value)> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: service\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = serde_json::from_str(body);
    let body = body.map_err(|error| Error::new(ErrorKind::Invalid, answer.clone()).with_source(error))?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails loudly")]

    use vdstream::testing::fault_store::Operation;
    use vdstream::testing::{Fault, FaultStore, Rule};

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_removed_does_not_hide_why_a_backup_has_ended() {
        let store = FaultStore::memory(0).rule(Rule::new(Fault::Denied).on(Operation::Delete)).store();
        let service = Service::new(store.clone());
        let backup = Backup::begin(&store, "endless", BackupOptions::default().stripes(2)).await.unwrap();
        service.stop.cancel();
        let error = run(&service, backup, 1_000_000).await.unwrap_err();
        assert_eq!(error.report(), "the service ends");
        assert!(store.take_leftovers().is_some(), "all was removed, so nothing could hide it");
    }
}
