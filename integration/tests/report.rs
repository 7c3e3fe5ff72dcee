//! The pages of `show --html` and `backup --report`, as a browser shows them: the charts are there, nothing is asked of a network, and
//! nothing that a store holds becomes markup.

#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use integration::tool;
use tempfile::TempDir;

struct Work(TempDir);

impl Work {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Runs `verb` on the store.
    fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        let mut command = tool::vdstream_command();
        command.arg(verb).arg(self.path("store")).args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.run(verb, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// What a browser made of a page.
struct Shown {
    dom: String,
    /// Messages of the page's console: errors, violations of its policy.
    console: Vec<String>,
    /// Connections to whatever would have carried it to a network.
    requests: usize,
}

/// A proxy that counts connections and closes each.
struct Proxy {
    port: u16,
    is_over: Arc<AtomicBool>,
    counted: JoinHandle<usize>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let count = move || listener.incoming().take_while(|_| !seen.load(Ordering::SeqCst)).count();
        Self { port, is_over, counted: std::thread::spawn(count) }
    }

    fn end(self) -> usize {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        self.counted.join().unwrap()
    }
}

/// Opens `page` in a browser whose only way to any network is a proxy that counts.
fn show(page: &Path, more: &[&str]) -> Shown {
    let profile = TempDir::new().unwrap();
    let proxy = Proxy::start();
    let mut command = Command::new(tool::installed("CHROMIUM"));
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
    command.args(["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--timeout=20000"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--proxy-server=http://127.0.0.1:{}", proxy.port));
    command.args(more).arg(format!("file://{}", page.display()));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let requests = proxy.end();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let console = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    Shown { dom: String::from_utf8_lossy(&output.stdout).into_owned(), console, requests }
}

/// A picture of the page as a screen of this size shows it, by day or by night.
fn picture(page: &Path, size: &str, scheme: &str) -> Vec<u8> {
    let path = page.with_extension(format!("{size}.{scheme}.png"));
    let scheme = format!("--blink-settings=preferredColorScheme={}", if scheme == "dark" { 0 } else { 1 });
    let (file, size) = (format!("--screenshot={}", path.display()), format!("--window-size={size}"));
    show(page, &[&file, &size, &scheme, "--hide-scrollbars"]);
    let image = fs::read(&path).unwrap();
    assert!(image.starts_with(b"\x89PNG") && image.len() > 20_000, "{}: {} bytes", path.display(), image.len());
    image
}

/// How wide a page is on a telephone, and how wide the telephone: no more, or it would have to be pushed sideways.
fn widths(page: &Path, scheme: &str) -> (u32, u32) {
    let around = page.with_extension("telephone.html");
    let address = page.display();
    let text = format!(
        "<iframe id=telephone src='file://{address}' style='border:0;width:{TELEPHONE}px;height:844px'></iframe>
         <script>onload = () => {{
             const root = document.getElementById('telephone').contentDocument.documentElement;
             document.title = `widths ${{root.scrollWidth}} ${{root.clientWidth}} end`;
         }}</script>"
    );
    fs::write(&around, text).unwrap();
    let scheme = format!("--blink-settings=preferredColorScheme={}", if scheme == "dark" { 0 } else { 1 });
    // The page itself has no script and forbids any, so it is measured from around it.
    let shown = show(&around, &["--dump-dom", "--allow-file-access-from-files", "--hide-scrollbars", &scheme]);
    let found = shown.dom.split("widths ").nth(1).and_then(|rest| rest.split(" end").next());
    let found = found.unwrap_or_else(|| panic!("not measured: {:?}\n{}", shown.console, shown.dom));
    let (page, screen) = found.split_once(' ').unwrap();
    (page.parse().unwrap(), screen.parse().unwrap())
}

/// Pixels from side to side.
const TELEPHONE: u32 = 390;

#[track_caller]
fn assert_fits_a_telephone(page: &Path) {
    for scheme in ["light", "dark"] {
        assert_eq!(widths(page, scheme), (TELEPHONE, TELEPHONE), "{}, {scheme}", page.display());
    }
}

#[track_caller]
fn assert_clean(shown: &Shown) {
    assert_eq!(shown.console, [""; 0]);
    assert_eq!(shown.requests, 0, "the page asked for something of a network");
    assert!(!shown.dom.contains("<script"), "{}", shown.dom);
}

const HOSTILE: &str = "who=<script>alert(1)</script><img src=http://example.test/x.png onerror=alert(1)>\"'&";

#[test]
fn a_backup_is_shown_with_its_charts_and_its_history() {
    let work = Work::new();
    fs::write(work.path("a"), vec![7; 3_000_000]).unwrap();
    let random = Command::new("head").args(["-c", "9000000", "/dev/urandom"]).output().unwrap().stdout;
    fs::write(work.path("b"), random).unwrap();
    let (a, b) = (work.text("a"), work.text("b"));
    let inputs = ["--input", &a, "--input", &b, "--label", HOSTILE, "--series", "orders"];
    let id = work.succeeds("backup", &inputs);
    work.succeeds("verify", &[&id, "--series", "orders", "--level", "full"]);
    work.succeeds("verify", &[&id, "--series", "orders", "--level", "stored"]);
    let page = work.path("page.html");
    fs::write(&page, b"an older page").unwrap();
    work.succeeds("show", &["latest", "--series", "orders", "--html", &work.text("page.html")]);

    let shown = show(&page, &["--dump-dom"]);
    assert_clean(&shown);
    let dom = &shown.dom;
    assert_eq!(dom.matches("<svg").count(), 6, "throughput, waits and stripes, each for wide and narrow screens");
    assert!(dom.matches("<polygon").count() >= 2, "the area of the throughput");
    for part in [
        "Throughput",
        "Who was waited for",
        "Stripes",
        "stripe 1",
        "Restore",
        "Verifications",
        "Hashes",
        "orders",
        "full",
        "stored",
        "good",
        "vdstream restore",
        "--output FILE0 --output FILE1",
        id.as_str(),
    ] {
        assert!(dom.contains(part), "`{part}` is not on the page:\n{dom}");
    }
    let manifest = work.succeeds("show", &[&id, "--series", "orders", "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for stripe in manifest["stripes"].as_array().unwrap() {
        assert!(dom.contains(stripe["segments"][0]["stored_hash"].as_str().unwrap()));
    }
    // As text, not as markup: the browser would have fetched the image and said so.
    assert!(dom.contains("&lt;script&gt;alert(1)"), "{dom}");
    for size in ["1280,2400", "390,3000"] {
        assert!(picture(&page, size, "light") != picture(&page, size, "dark"), "{size}: day and night look the same");
    }
    assert_fits_a_telephone(&page);
    let paper = work.path("page.pdf");
    assert_clean(&show(&page, &[&format!("--print-to-pdf={}", paper.display())]));
    let paper = fs::read(paper).unwrap();
    assert!(paper.starts_with(b"%PDF") && paper.len() > 10_000, "{} bytes", paper.len());
}

#[test]
fn a_request_would_be_seen() {
    let work = Work::new();
    let page = work.path("page.html");
    fs::write(&page, "<img src='http://example.test/x.png'><script>console.error('seen')</script>").unwrap();
    let shown = show(&page, &["--dump-dom"]);
    assert!(shown.requests > 0, "the proxy sees no request");
    assert!(shown.console.iter().any(|line| line.contains("seen")), "{:?}", shown.console);
}

/// One long word that nothing may break, on a page that is otherwise as ours are.
#[test]
fn a_page_that_is_too_wide_would_be_seen() {
    let work = Work::new();
    work.succeeds("backup", &["--report", &work.text("page.html"), "--", "echo", "x"]);
    let page = work.path("page.html");
    assert_fits_a_telephone(&page);
    let text = fs::read_to_string(&page).unwrap();
    let wide = "<p style='overflow-wrap:normal;width:500px'>wide</p></main>";
    fs::write(&page, text.replacen("</main>", wide, 1)).unwrap();
    for scheme in ["light", "dark"] {
        let (page, screen) = widths(&page, scheme);
        assert!(page >= 500 && screen == TELEPHONE, "{page} on {screen}, {scheme}");
    }
}

#[test]
fn a_backup_writes_its_report_and_a_failed_one_says_that_there_is_none() {
    let work = Work::new();
    let id = work.succeeds("backup", &["--report", &work.text("good.html"), "--", "seq", "200000"]);
    let shown = show(&work.path("good.html"), &["--dump-dom"]);
    assert_clean(&shown);
    assert!(shown.dom.contains(&id) && shown.dom.contains("Not verified yet"), "{}", shown.dom);
    assert_eq!(shown.dom.matches("<svg").count(), 6);

    let script = "head -c 9000000 /dev/urandom; sleep 0.3; exit 7";
    let failed = work.run("backup", &["--report", &work.text("bad.html"), "--", "sh", "-c", script]);
    assert_eq!(failed.status.code(), Some(1));
    let shown = show(&work.path("bad.html"), &["--dump-dom"]);
    assert_clean(&shown);
    for part in ["There is no backup", "exit status: 7", "taken in", "Throughput"] {
        assert!(shown.dom.contains(part), "`{part}` is not on the page:\n{}", shown.dom);
    }
    assert_fits_a_telephone(&work.path("bad.html"));
    let early = work.run("backup", &["--report", &work.text("early.html"), "--input", "/no/such/file"]);
    assert_eq!(early.status.code(), Some(10));
    assert!(fs::read_to_string(work.path("early.html")).unwrap().contains("/no/such/file"));
    assert_eq!(work.succeeds("list", &["--json"]).matches("\"id\"").count(), 1);
    let left = fs::read_dir(work.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("partial")), "nothing half-written stays");
}

/// The URL is refused, and the page was opened before that.
#[test]
fn a_secret_in_a_url_is_not_on_the_page() {
    let work = Work::new();
    for url in [
        "https://account.blob.core.windows.net/container?sv=2024&sig=hunter2",
        "s3://key:hunter2@bucket/prefix",
        "az://container/prefix#hunter2",
    ] {
        let arguments = ["backup", url, "--report", &work.text("page.html"), "--", "echo", "x"];
        let refused = tool::vdstream_command().args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{url}: {}", String::from_utf8_lossy(&refused.stderr));
        let page = fs::read_to_string(work.path("page.html")).unwrap();
        assert!(page.contains("There is no backup") && page.contains("credentials come from"), "{url}: {page}");
        assert!(!page.contains("hunter2"), "{url}: {page}");
    }
}

/// Its commit fails, and a manifest is there: somebody else's.
#[test]
fn a_page_does_not_say_that_there_is_no_backup_when_there_may_be_one() {
    let work = Work::new();
    let script =
        format!("i=$(find {} -name intent.json); echo x | tee ${{i%intent.json}}manifest.json", work.text("store"));
    let failed = work.run("backup", &["--report", &work.text("page.html"), "--", "sh", "-c", &script]);
    assert_eq!(failed.status.code(), Some(11), "{}", String::from_utf8_lossy(&failed.stderr));
    let page = fs::read_to_string(work.path("page.html")).unwrap();
    for part in ["There may be a backup", "another manifest stands"] {
        assert!(page.contains(part), "`{part}` is not on the page:\n{page}");
    }
    for part in ["There is no backup", "Nothing of this attempt", "would have been"] {
        assert!(!page.contains(part), "`{part}` is on the page:\n{page}");
    }
}

#[test]
fn a_place_where_no_report_can_be_is_refused_before_the_backup() {
    let work = Work::new();
    for (place, code) in [(work.text("no/such/directory/page.html"), 10), (work.text(""), 2), ("-".to_owned(), 2)] {
        let refused = work.run("backup", &["--report", &place, "--", "echo", "x"]);
        assert_eq!(refused.status.code(), Some(code), "{place}: {}", String::from_utf8_lossy(&refused.stderr));
    }
    assert!(!work.path("store").exists(), "nothing was begun");
    // Opened, but never full: the backup is there all the same, and the exit code says so.
    let full = work.run("backup", &["--report", "/dev/full", "--", "echo", "x"]);
    assert_eq!(full.status.code(), Some(6), "{}", String::from_utf8_lossy(&full.stderr));
    assert!(String::from_utf8_lossy(&full.stderr).contains("is committed"));
}

#[test]
fn a_backup_that_recorded_nothing_of_its_course_is_shown_too() {
    let old = tool::repository().join("integration/fixtures/version-1");
    let work = Work::new();
    let page = work.text("old.html");
    let output = tool::vdstream_command()
        .arg("show")
        .arg(&old)
        .args(["latest", "--series", "fixture", "--html", &page])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = show(Path::new(&page), &["--dump-dom"]);
    assert_clean(&shown);
    assert!(shown.dom.contains("Not recorded"), "{}", shown.dom);
    assert_eq!(shown.dom.matches("<svg").count(), 2);
    assert_fits_a_telephone(Path::new(&page));
}
