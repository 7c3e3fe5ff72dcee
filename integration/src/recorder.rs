//! A server that writes down what it is asked. It answers by itself, as a service that gives credentials would, or hands on to a
//! real server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Path and query; a proxy is given the whole address.
    pub target: String,
    /// Its headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body, if the server answers by itself.
    pub body: String,
}

impl Request {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// True if the signature covers a header, as S3 wants it of all headers of its own.
    pub fn signs(&self, name: &str) -> bool {
        let signed = self.header("authorization").split("SignedHeaders=").nth(1).unwrap_or_default();
        signed.split(',').next().unwrap_or_default().split(';').any(|signed| signed == name)
    }
}

/// Status and body of an answer.
pub type Answer = (u16, String);

/// A recording server on loopback. It ends when it is dropped.
pub struct Recorder {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

/// Lines of a head that a request gets beside its own.
type More = Box<dyn Fn(&Request) -> &'static str + Send + Sync>;
/// The answer to a request that is not handed on.
type Instead = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

enum Role {
    Answers(Box<dyn Fn(&Request) -> Answer + Send + Sync>),
    Forwards {
        /// `host:port` of the server behind.
        server: String,
        more: More,
        instead: Instead,
    },
}

impl Recorder {
    /// A server that answers by itself.
    pub async fn answering(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(Role::Answers(Box::new(answer))).await
    }

    /// A server before the one at `endpoint` (`http://host:port`).
    pub async fn before(endpoint: &str) -> Self {
        Self::before_adding(endpoint, |_| "").await
    }

    /// The same, which gives the server more headers: `more` has whole lines for a request, or nothing.
    pub async fn before_adding(
        endpoint: &str,
        more: impl Fn(&Request) -> &'static str + Send + Sync + 'static,
    ) -> Self {
        Self::forwarding(endpoint, Box::new(more), Box::new(|_| None)).await
    }

    /// The same, which answers by itself, and does not hand on, what `instead` has an answer for.
    pub async fn before_answering(
        endpoint: &str,
        instead: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::forwarding(endpoint, Box::new(|_| ""), Box::new(instead)).await
    }

    async fn forwarding(endpoint: &str, more: More, instead: Instead) -> Self {
        let server = endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
        Self::start(Role::Forwards { server: server.to_owned(), more, instead }).await
    }

    async fn start(role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, Arc::new(role), Arc::clone(&requests)));
        Self { endpoint: format!("http://127.0.0.1:{port}"), requests, task }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Everything that it was asked, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.endpoint)
    }
}

async fn accept(listener: TcpListener, role: Arc<Role>, requests: Arc<Mutex<Vec<Request>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (role, requests) = (Arc::clone(&role), Arc::clone(&requests));
        // A connection that breaks is the client's to notice.
        connections.spawn(async move { drop(serve(client, &role, &requests).await) });
    }
}

async fn serve(client: TcpStream, role: &Role, requests: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    let note = |request: Request| requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    match role {
        Role::Answers(answer) => {
            while let Some((_, mut request, length)) = head(&mut from_client).await? {
                let mut body = vec![0; length];
                from_client.read_exact(&mut body).await?;
                request.body = String::from_utf8_lossy(&body).into_owned();
                let answer = answer(&request);
                note(request);
                reply(&mut to_client, answer).await?;
            }
            Ok(())
        }
        Role::Forwards { server, more, instead } => loop {
            let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
            let forth = async {
                while let Some((mut raw, request, length)) = head(&mut from_client).await? {
                    if let Some(answer) = instead(&request) {
                        note(request);
                        return Err(End::Answer(answer, length));
                    }
                    // Before the empty line that ends it.
                    raw.truncate(raw.len() - 2);
                    raw.extend_from_slice(more(&request).as_bytes());
                    raw.extend_from_slice(b"\r\n");
                    note(request);
                    to_server.write_all(&raw).await?;
                    pass(&mut from_client, &mut to_server, length).await?;
                }
                Ok(to_server.shutdown().await?)
            };
            let back = async { Ok::<_, End>(tokio::io::copy(&mut from_server, &mut to_client).await?) };
            match tokio::try_join!(forth, back) {
                Ok(_) => return Ok(()),
                Err(End::Broken(error)) => return Err(error),
                // A client asks one thing at a time, so nothing of the server's is on its way.
                Err(End::Answer(answer, length)) => {
                    pass(&mut from_client, &mut tokio::io::sink(), length).await?;
                    reply(&mut to_client, answer).await?;
                }
            }
        },
    }
}

/// Why no more is handed on.
enum End {
    Broken(std::io::Error),
    /// A request is answered here. Its body, of such a length, was not read yet.
    Answer(Answer, usize),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

async fn reply(to: &mut (impl AsyncWrite + Unpin), (status, body): Answer) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} Answer\r\ncontent-length: {}\r\n\r\n", body.len());
    to.write_all((head + &body).as_bytes()).await
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    length: usize,
) -> std::io::Result<()> {
    tokio::io::copy(&mut from.take(length as u64), to).await?;
    to.flush().await
}

/// The next head: as it came, understood, and the length of the body behind it.
async fn head(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<(Vec<u8>, Request, usize)>> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        match from.read_u8().await {
            Ok(byte) => raw.push(byte),
            Err(_) if raw.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&raw).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Ok(Some((raw, Request { method, target, headers, body: String::new() }, length)))
}
