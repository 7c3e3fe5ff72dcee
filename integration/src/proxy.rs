//! A server in the way: it hands requests on to a real one, until a test wants some of them to hang.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy that holds back the requests whose text has certain words in it. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    endpoint: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// `host:port` of the real server.
    server: String,
    /// All of these words in the first line and headers of a request hold it.
    words: Mutex<Vec<&'static str>>,
    /// How many requests were held, and whether they may go on.
    held: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy before the server at `endpoint` (`http://host:port`), holding requests with all of `words`.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn hold(endpoint: &str, words: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let shared = Arc::new(Shared {
            server,
            words: Mutex::new(words.to_vec()),
            held: watch::Sender::new(0),
            released: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { endpoint: format!("http://127.0.0.1:{port}"), shared, task }
    }

    /// What clients take for the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    ///
    /// When none comes in a minute.
    pub async fn holds_one(&self) {
        let mut held = self.shared.held.subscribe();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), held.wait_for(|held| *held > 0)).await;
        waited.expect("no such request came").expect("the sender is ours");
    }

    /// From now on, holds requests with all of `words` instead.
    pub fn change(&self, words: &[&'static str]) {
        *self.shared.words.lock().unwrap_or_else(PoisonError::into_inner) = words.to_vec();
    }

    /// Lets every request pass, those that were held too.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // A connection that breaks is the client's to notice.
        connections.spawn(async move { drop(serve(client, &shared).await) });
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(&shared.server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forth = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            // The clients send a request's head in one piece, at the beginning of a read.
            if shared.is_to_be_held(&buffer[..count]) {
                shared.held.send_modify(|held| *held += 1);
                let mut released = shared.released.subscribe();
                let _ended = released.wait_for(|released| *released).await;
            }
            to_server.write_all(&buffer[..count]).await?;
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::try_join!(forth, back)?;
    Ok(())
}

impl Shared {
    fn is_to_be_held(&self, bytes: &[u8]) -> bool {
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        !*self.released.borrow() && head.contains("HTTP/1.1\r\n") && words.iter().all(|word| head.contains(word))
    }
}
