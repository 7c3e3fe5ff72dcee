//! `--metrics-file`: the numbers of the last run for the textfile collector of Prometheus' node exporter. A contract, written
//! down in the manual's page on observing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use vdstream::clock::{Clock as _, SystemClock};
use vdstream::{Error, ErrorKind};

use crate::exit::Failure;
use crate::output;

/// Each metric and what it means. All are gauges: a run sets them anew.
const METRICS: [(&str, &str); 8] = [
    ("vdstream_duration_seconds", "How long the run took, or has taken until now."),
    ("vdstream_exit_code", "How the last run that ended did."),
    ("vdstream_last_success_timestamp_seconds", "When the last run that succeeded ended."),
    ("vdstream_raw_bytes", "Raw bytes backed up, restored or checked."),
    ("vdstream_running", "1 while the command runs."),
    ("vdstream_start_timestamp_seconds", "When the run began."),
    ("vdstream_stored_bytes", "Stored bytes written or read."),
    ("vdstream_update_timestamp_seconds", "When these numbers were written."),
];

const WRITE_EVERY: Duration = Duration::from_secs(15);
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// The numbers of this run, and the file that they go to, if there is one.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    path: Option<PathBuf>,
    labels: String,
    clock: SystemClock,
    begun: Duration,
    start: f64,
    bytes: Mutex<Bytes>,
}

/// How far the work is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) raw: u64,
    pub(crate) stored: u64,
}

impl MetricsFile {
    /// Writes the file for the first time. What stands there and holds anything but our numbers is left alone, and the work does not
    /// begin: the path is most likely not the one that was meant.
    pub(crate) fn begin(path: Option<&Path>, command: &str, series: &str) -> Result<Self, Failure> {
        if let Some(path) = path {
            refuse_foreign(path)?;
        }
        let clock = SystemClock::new();
        let labels = format!("{{command=\"{}\",series=\"{}\"}}", escaped(command), escaped(series));
        let path = path.map(Path::to_owned);
        let start = seconds(&clock);
        let this = Self { path, labels, begun: clock.now(), start, clock, bytes: Mutex::default() };
        this.write(None);
        Ok(this)
    }

    /// Does the work, and writes the file now and then whatever the work waits for, and for the last time when it has ended.
    pub(crate) async fn during(&self, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        let outcome = tokio::select! {
            // First, so that what is written is what it has noted.
            biased;
            outcome = work => outcome,
            never = self.keep() => match never {},
        };
        self.write(Some(outcome.as_ref().err().map_or(0, Failure::number)));
        outcome
    }

    async fn keep(&self) -> Infallible {
        loop {
            if self.path.is_none() {
                return std::future::pending().await;
            }
            self.clock.sleep(WRITE_EVERY).await;
            self.write(None);
        }
    }

    /// Notes how far the work is now and then, until it is dropped.
    pub(crate) async fn follow(&self, bytes: impl Fn() -> Bytes) -> Infallible {
        loop {
            if self.path.is_none() {
                return std::future::pending().await;
            }
            self.clock.sleep(NOTE_EVERY).await;
            self.note(bytes());
        }
    }

    /// What the file will say at its next writing.
    pub(crate) fn note(&self, bytes: Bytes) {
        if let Ok(mut noted) = self.bytes.lock() {
            *noted = bytes;
        }
    }

    fn write(&self, exit_code: Option<u8>) {
        let Some(path) = &self.path else { return };
        // The numbers of other series stay, and so does the time of the last success.
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let text = render(&before, &self.labels, &self.samples(exit_code));
        if let Err(error) = replace(path, &text) {
            let error = Error::from(error).context(format!("the metrics file {} cannot be written", path.display()));
            output::note(&error.report());
        }
    }

    fn samples(&self, exit_code: Option<u8>) -> Vec<(&'static str, f64)> {
        let bytes = self.bytes.lock().map(|bytes| *bytes).unwrap_or_default();
        let now = seconds(&self.clock);
        let mut samples = vec![
            ("vdstream_duration_seconds", self.clock.now().saturating_sub(self.begun).as_secs_f64()),
            ("vdstream_raw_bytes", bytes.raw as f64),
            ("vdstream_running", if exit_code.is_none() { 1.0 } else { 0.0 }),
            ("vdstream_start_timestamp_seconds", self.start),
            ("vdstream_stored_bytes", bytes.stored as f64),
            ("vdstream_update_timestamp_seconds", now),
        ];
        if let Some(code) = exit_code {
            samples.push(("vdstream_exit_code", f64::from(code)));
            // Code 6: the work is done, only its report could not be printed.
            if code == 0 || code == 6 {
                samples.push(("vdstream_last_success_timestamp_seconds", now));
            }
        }
        samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a time stamp have 41 bits")]
fn seconds(clock: &SystemClock) -> f64 {
    clock.wall().as_millisecond() as f64 / 1000.0
}

/// What every metric of ours begins with, of other versions too.
const PREFIX: &str = "vdstream_";

/// Fails if a file stands at `path` that holds, or may hold, what we did not write.
fn refuse_foreign(path: &Path) -> vdstream::Result<()> {
    let foreign = |why: &str| {
        let error = format!("--metrics-file {} would be replaced, and {why}: name another file", path.display());
        Err(Error::new(ErrorKind::Invalid, error))
    };
    match std::fs::metadata(path) {
        // What cannot be written is told then, and is no reason to make no backup.
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(found) if !found.is_file() => return foreign("it is no regular file"),
        Ok(_) => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) if text.lines().all(is_ours) => Ok(()),
        Ok(_) => foreign("it has lines that are not vdstream's"),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => foreign("it is no text"),
        Err(_) => foreign("what it holds cannot be read"),
    }
}

/// Whether a line is one that we write, or leave out when we write.
fn is_ours(line: &str) -> bool {
    let comment = ["# HELP ", "# TYPE "].iter().find_map(|start| line.strip_prefix(start));
    line.is_empty() || comment.unwrap_or_default().starts_with(PREFIX) || sample(line).is_some()
}

/// The name, the labels in their braces, and the value of a sample of ours.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    let (sample, value) = line.rsplit_once(' ')?;
    let (name, labels) = sample.split_at_checked(sample.find('{')?)?;
    let is_sample = name.starts_with(PREFIX) && labels.ends_with('}') && value.parse::<f64>().is_ok();
    is_sample.then_some((name, labels, value))
}

/// What the file holds after `samples` of the series with these labels were set; what is not one of our metrics is dropped.
fn render(before: &str, labels: &str, samples: &[(&'static str, f64)]) -> String {
    let mut values: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    for (name, labels, value) in before.lines().filter_map(sample) {
        if let Some((metric, _)) = METRICS.iter().find(|(metric, _)| *metric == name) {
            values.insert((metric, labels.to_owned()), value.to_owned());
        }
    }
    for (metric, value) in samples {
        values.insert((metric, labels.to_owned()), value.to_string());
    }
    let mut text = String::new();
    for (metric, what) in METRICS {
        let mut series = values.iter().filter(|((name, _), _)| *name == metric).peekable();
        if series.peek().is_some() {
            let _ = writeln!(text, "# HELP {metric} {what}\n# TYPE {metric} gauge");
        }
        for ((_, labels), value) in series {
            let _ = writeln!(text, "{metric}{labels} {value}");
        }
    }
    text
}

/// The value of a label, as the text format quotes it.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Puts `text` in the place of what is at `path`: all of it or nothing, for whoever reads.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))?;
    // The collector reads what ends with `.prom`, which this does not.
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error counts.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_others_and_the_last_success_stay() {
        let mine = "{command=\"backup\",series=\"a\"}";
        let first = render("", mine, &[("vdstream_exit_code", 0.0), ("vdstream_last_success_timestamp_seconds", 7.5)]);
        let other = "{command=\"backup\",series=\"b } 1\"}";
        let second = render(&first, other, &[("vdstream_exit_code", 1.0)]);
        let third = render(&second, mine, &[("vdstream_exit_code", 13.0), ("vdstream_running", 0.0)]);
        assert_eq!(
            third,
            "# HELP vdstream_exit_code How the last run that ended did.\n\
             # TYPE vdstream_exit_code gauge\n\
             vdstream_exit_code{command=\"backup\",series=\"a\"} 13\n\
             vdstream_exit_code{command=\"backup\",series=\"b } 1\"} 1\n\
             # HELP vdstream_last_success_timestamp_seconds When the last run that succeeded ended.\n\
             # TYPE vdstream_last_success_timestamp_seconds gauge\n\
             vdstream_last_success_timestamp_seconds{command=\"backup\",series=\"a\"} 7.5\n\
             # HELP vdstream_running 1 while the command runs.\n\
             # TYPE vdstream_running gauge\n\
             vdstream_running{command=\"backup\",series=\"a\"} 0\n"
        );
        assert_eq!(render(&third, mine, &[]), third, "what was written is read");
    }

    #[test]
    fn what_is_not_ours_is_dropped() {
        for text in ["garbage", "up{} 1", "vdstream_running 1", "vdstream_running{a=\"b\"} x", "vdstream_running{ 1"] {
            assert_eq!(render(text, "{}", &[]), "", "{text}");
        }
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let begin = || MetricsFile::begin(Some(&path), "backup", "a");
        drop(begin().unwrap());
        let ours = std::fs::read_to_string(&path).unwrap();
        let later = format!("{ours}# HELP vdstream_later Of a later version.\nvdstream_later{{a=\"b\"}} 1\n\n");
        for fine in ["", &ours, &later] {
            std::fs::write(&path, fine).unwrap();
            drop(begin().unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), ours.lines().count());
        }
        let mixed = format!("{ours}up 1\n");
        for foreign in
            ["a line\n", &mixed, "# HELP up Whether it is up.\n", "up{} 1\n", "vdstream_running 1\n", "#!/bin/sh\n"]
        {
            std::fs::write(&path, foreign).unwrap();
            assert_eq!(begin().unwrap_err().number(), 2, "{foreign}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(begin().unwrap_err().number(), 2, "no text");
        assert!(MetricsFile::begin(Some(Path::new("/dev/null")), "backup", "a").is_err(), "a device");
        assert!(MetricsFile::begin(Some(&directory.path().join("none/x")), "backup", "a").is_ok(), "it is told later");
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_written_again_every_fifteen_seconds_and_once_more_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.prom");
        let file = MetricsFile::begin(Some(&path), "backup", "a").unwrap();
        let value = |name: &str| {
            let text = std::fs::read_to_string(&path).unwrap();
            let line =
                text.lines().find_map(|line| line.strip_prefix(&format!("vdstream_{name}{{")).map(str::to_owned));
            line.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        };
        let clock = SystemClock::new();
        let moved = || Bytes { raw: clock.now().as_secs(), stored: 1 };
        let look = async {
            let mut seen = Vec::new();
            // Always a moment before and a moment after it is written.
            clock.sleep(WRITE_EVERY - Duration::from_millis(1)).await;
            for _ in 0..3 {
                seen.push((value("raw_bytes").unwrap(), value("duration_seconds").unwrap()));
                clock.sleep(Duration::from_millis(2)).await;
                seen.push((value("raw_bytes").unwrap(), value("duration_seconds").unwrap()));
                clock.sleep(WRITE_EVERY - Duration::from_millis(2)).await;
            }
            seen
        };
        let work = async {
            let seen = tokio::select! {
                seen = look => seen,
                never = file.follow(moved) => match never {},
            };
            let times: Vec<f64> = seen.iter().map(|(_, time)| time.round()).collect();
            assert_eq!(times, [0.0, 15.0, 15.0, 30.0, 30.0, 45.0]);
            // What was noted last, and that is done every second.
            assert!(seen.iter().all(|(raw, time)| (0.0..=1.1).contains(&(time - raw))), "{seen:?}");
            assert_eq!((value("running"), value("exit_code")), (Some(1.0), None));
            file.note(Bytes { raw: 77, stored: 1 });
            Err(Failure::Signal(crate::exit::Signal::Terminate))
        };
        file.during(work).await.unwrap_err();
        assert_eq!((value("running"), value("exit_code"), value("raw_bytes")), (Some(0.0), Some(143.0), Some(77.0)));
        assert_eq!(value("last_success_timestamp_seconds"), None);
    }

    /// Such as a question for a passphrase, an engine that does not come, or the end of a clean-up.
    #[tokio::test(start_paused = true)]
    async fn the_file_is_not_old_whatever_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.prom");
        let file = MetricsFile::begin(Some(&path), "backup", "a").unwrap();
        let wait = async {
            SystemClock::new().sleep(4 * WRITE_EVERY + Duration::from_secs(1)).await;
            let text = std::fs::read_to_string(&path).unwrap();
            let took = text.lines().find_map(|line| line.strip_prefix("vdstream_duration_seconds{")).unwrap();
            let took: f64 = took.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!((took - 60.0).abs() < 0.1, "{text}");
            Ok(())
        };
        file.during(wait).await.unwrap();
    }

    #[test]
    fn whoever_reads_while_it_is_replaced_reads_one_or_the_other() {
        use std::io::Read as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.prom");
        let (old, new) = ("old\n".repeat(10_000), "new\n".repeat(3));
        replace(&path, &old).unwrap();
        let mut reader = std::fs::File::open(&path).unwrap();
        let mut read = vec![0; 5];
        reader.read_exact(&mut read).unwrap();
        replace(&path, &new).unwrap();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == old.as_bytes(), "who had begun to read the old one reads it to its end");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), new);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.prom");
        for text in ["one", "two"] {
            replace(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        assert!(replace(&directory.path().join("none/x.prom"), "").is_err());
        // A directory stands there: the temporary file goes.
        std::fs::create_dir(directory.path().join("d")).unwrap();
        assert!(replace(&directory.path().join("d"), "").is_err());
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2);
    }
}
