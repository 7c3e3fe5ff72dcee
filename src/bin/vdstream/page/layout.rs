//! The page around the pictures. Everything that comes from outside is escaped by the template, and control characters and marks
//! that turn the direction of writing are shown as such.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vdstream::Result;
use vdstream::backup::{Course, Manifest, Outcome, Standing, Verification};

use super::chart::{self, Bar, LONGEST, RAW, STORED, WIDTHS, Width};
use super::facts::{Attempt, Facts, Story, restore_command};
use crate::output::{self, printable};

/// No script, no other file, no address: only what is in the page itself.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("style.css");
/// Segments whose hashes the page lists; `show --json` has all.
const MOST_SEGMENTS: usize = 256;
/// The newest verifications that the page lists.
const MOST_VERIFICATIONS: usize = 100;

pub(super) fn page(facts: &Facts<'_>) -> Result<String> {
    let (title, body) = match &facts.story {
        Story::Committed { manifest, verifications, has_unread } => {
            (format!("Backup {}", manifest.id), committed(facts, manifest, verifications, *has_unread)?)
        }
        Story::Failed { attempt, why } => {
            let title = if attempt.may_be_committed { "A backup in doubt" } else { "No backup" };
            (title.to_owned(), failed(facts, attempt, why)?)
        }
    };
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (title) " · vdstream" }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
    .into_string())
}

fn committed(
    facts: &Facts<'_>,
    manifest: &Manifest,
    verifications: &[Verification],
    has_unread: bool,
) -> Result<Markup> {
    let (raw, stored) = (manifest.raw_bytes(), manifest.stored_bytes());
    let (class, word) = badge(verifications, has_unread);
    let mut tiles = vec![("raw", output::size(raw)), ("stored", output::size(stored)), ("ratio", ratio(raw, stored))];
    if let Some(course) = &manifest.course {
        let moved = course.raw_bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        // A process that resumed the backup has not taken in what was stored before.
        let name = if moved < raw { "time of the last process" } else { "time" };
        tiles.extend([(name, time(course.millis)), ("rate", rate(moved, course.millis))]);
    }
    tiles.push(("segments", manifest.segments().to_string()));
    Ok(html! {
        header {
            p.kicker { "vdstream backup · series " (printable(facts.series)) }
            h1 { code { (manifest.id) } " " span class={ "badge " (class) } { (word) } }
            p.muted { (format!("{:.0}", manifest.finished)) " · " (printable(facts.url)) }
        }
        (tiles_of(&tiles))
        (course_of(manifest.course.as_ref())?)
        (stripes_of(manifest)?)
        section { h2 { "Restore" } pre { (printable(&restore_command(facts.url, manifest))) } }
        section { h2 { "Verifications" } (history(verifications)) }
        section { h2 { "About" } (about(manifest)) }
        section { h2 { "Hashes" } (hashes(manifest)) }
        (footer())
    })
}

/// The class and the words of the badge: damage that stands, before what nobody can read, before the last verification and how much it
/// has looked at.
fn badge(verifications: &[Verification], has_unread: bool) -> (&'static str, String) {
    if let Some(damage) = Standing::of(verifications).damage {
        return ("bad", crate::catalog::damaged(&damage));
    }
    match verifications.last() {
        _ if has_unread => ("plain", "committed, a record of a verification cannot be used".to_owned()),
        None => ("plain", "committed".to_owned()),
        Some(last) if last.is_complete() => ("good", format!("committed, verified ({})", last.level)),
        Some(Verification { level, good, segments, .. }) => {
            ("plain", format!("committed, verified ({level}, {good} of {segments} segments)"))
        }
    }
}

fn failed(facts: &Facts<'_>, attempt: &Attempt, why: &str) -> Result<Markup> {
    let course = attempt.course.as_ref();
    let raw: u64 = attempt.stripes.iter().map(|stripe| stripe.position).sum();
    let durable: u64 = attempt.stripes.iter().map(|stripe| stripe.durable).sum();
    let mut tiles = vec![("taken in", output::size(raw)), ("of it durable", output::size(durable))];
    if let Some(course) = course {
        tiles.extend([("time", time(course.millis)), ("retries", course.retries.to_string())]);
    }
    let most = attempt.stripes.iter().map(|stripe| stripe.position).max().unwrap_or(0);
    let rows: Vec<Bar> = attempt
        .stripes
        .iter()
        .enumerate()
        .map(|(nth, stripe)| Bar {
            label: format!("stripe {nth}"),
            value: format!("{} taken in, {} durable", output::size(stripe.position), output::size(stripe.durable)),
            parts: vec![(share(stripe.position, most), RAW), (share(stripe.durable, most), STORED)],
        })
        .collect();
    let (heading, word, its_id, outcome) = match attempt.may_be_committed {
        false => (
            "There is no backup ",
            "failed",
            " · would have been ",
            "Nothing of this attempt can be restored, unless another process has resumed it. Earlier backups are as they were.",
        ),
        true => (
            "There may be a backup ",
            "in doubt",
            " · its id: ",
            "The commit had begun: the reason says what is known of it, and `vdstream list` whether it is there. Earlier backups are \
             as they were.",
        ),
    };
    Ok(html! {
        header {
            p.kicker { "vdstream backup · series " (printable(facts.series)) }
            h1 { (heading) span class="badge bad" { (word) } }
            p.muted { (printable(facts.url)) @if let Some(id) = attempt.id { (its_id) code { (id) } } }
        }
        section.alarm {
            h2 { "Why" }
            p { (printable(why)) }
            p { (outcome) }
        }
        @if course.is_some() {
            (tiles_of(&tiles))
            (course_of(course)?)
        }
        @if !rows.is_empty() {
            section {
                h2 { "Stripes" }
                (legend(&[("raw", "taken in"), ("stored", "durable")]))
                (figure("Bytes of each stripe", |width| chart::bars(&rows, width))?)
            }
        }
        (footer())
    })
}

fn footer() -> Markup {
    html! { footer { "Written by vdstream " (env!("CARGO_PKG_VERSION")) ". Sizes are binary: 1 MiB = 1,048,576 bytes. Times are in UTC." } }
}

fn tiles_of(tiles: &[(&str, String)]) -> Markup {
    html! { dl.tiles { @for (name, value) in tiles { div { dt { (name) } dd { (value) } } } } }
}

/// The same picture for each width; the style sheet shows the one that fits.
fn figure(words: &str, draw: impl Fn(Width) -> Result<String>) -> Result<Markup> {
    let pictures = WIDTHS.map(|width| draw(width).map(|svg| (width.class, svg)));
    let mut figure = Vec::new();
    for picture in pictures {
        let (class, svg) = picture?;
        figure.push(html! { div class=(class) role="img" aria-label=(words) { (PreEscaped(svg)) } });
    }
    Ok(html! { figure { @for picture in figure { (picture) } } })
}

fn legend(entries: &[(&str, &str)]) -> Markup {
    html! { p.legend { @for (class, word) in entries { span class=(class) { (word) } " " } } }
}

fn course_of(course: Option<&Course>) -> Result<Markup> {
    let Some(course) = course else {
        return Ok(
            html! { section { h2 { "Throughput" } p.muted { "Not recorded: the backup was made without it." } } },
        );
    };
    let (waits, who) = waits_of(course);
    let most = waits.iter().map(|wait| wait.millis).max().unwrap_or(0);
    let rows: Vec<Bar> = waits
        .iter()
        .map(|Wait { name, what, millis }| Bar {
            label: format!("{name}: {what}"),
            value: time(*millis),
            parts: vec![(share(*millis, most), if who == Some(*name) { LONGEST } else { RAW })],
        })
        .collect();
    let busy = share(course.cpu_busy_millis, course.millis.saturating_mul(course.threads.max(1))) * 100.0;
    Ok(html! {
        section {
            h2 { "Throughput" }
            @if course.raw_bytes.is_empty() {
                p.muted { "Nothing moved." }
            } @else {
                (legend(&[("raw", "raw bytes taken in"), ("stored", "bytes stored")]))
                (figure("Bytes per second over time", |width| chart::throughput(course, width))?)
            }
        }
        section {
            h2 { "Who was waited for" }
            p.muted {
                @match who {
                    Some(name) => { "Longest for: " strong { (name) } ". " }
                    None => { "For nobody. " }
                }
                "Time is summed over everything that ran at once. "
                (format!("{busy:.0} % of the time of {}", output::plural(usize::try_from(course.threads).unwrap_or(0), "thread")))
                " went into compression and hashing; "
                (output::plural(usize::try_from(course.requests).unwrap_or(0), "request")) ", "
                (course.retries) " made again; at most " (output::size(course.memory_peak_bytes)) " of memory."
            }
            (figure("Time waited for each stage", |width| chart::bars(&rows, width))?)
        }
    })
}

/// What others waited for, and for how long.
struct Wait {
    name: &'static str,
    what: &'static str,
    millis: u64,
}

/// All waits, and the name of who was waited for longest.
fn waits_of(course: &Course) -> ([Wait; 4], Option<&'static str>) {
    let throttled = course.throttled_millis.saturating_add(course.limited_millis);
    let waits = [
        Wait { name: "producer", what: "program, file or engine", millis: course.source_wait_millis },
        Wait { name: "compression", what: "a free thread", millis: course.cpu_wait_millis },
        Wait { name: "upload", what: "the store or the way to it", millis: course.store_wait_millis },
        Wait { name: "throttled", what: "pauses, or your own limit", millis: throttled },
    ];
    let longest = waits.iter().filter(|wait| wait.millis > 0).max_by_key(|wait| wait.millis);
    // As progress says it: the store is waited for because its requests are, by what holds them longer than the store does.
    let is_held = throttled > course.store_busy_millis;
    let who = longest.map(|wait| if wait.name == "upload" && is_held { "throttled" } else { wait.name });
    (waits, who)
}

fn stripes_of(manifest: &Manifest) -> Result<Markup> {
    let most = manifest.stripes.iter().map(|stripe| stripe.raw_bytes.max(stripe.stored_bytes)).max().unwrap_or(0);
    let rows: Vec<Bar> = manifest
        .stripes
        .iter()
        .enumerate()
        .map(|(nth, stripe)| Bar {
            label: format!("stripe {nth}"),
            value: format!("{} as {}", output::size(stripe.raw_bytes), output::size(stripe.stored_bytes)),
            parts: vec![(share(stripe.raw_bytes, most), RAW), (share(stripe.stored_bytes, most), STORED)],
        })
        .collect();
    Ok(html! {
        section {
            h2 { "Stripes" }
            (legend(&[("raw", "raw"), ("stored", "stored")]))
            (figure("Raw and stored bytes of each stripe", |width| chart::bars(&rows, width))?)
        }
    })
}

fn history(verifications: &[Verification]) -> Markup {
    if verifications.is_empty() {
        return html! { p.muted { "Not verified yet: " code { "vdstream verify" } " does it, and is recorded." } };
    }
    html! {
        div.scroll { table {
            thead { tr { th { "time" } th { "level" } th { "outcome" } th { "segments" } th { "findings" } th { "host" } } }
            tbody { @for record in verifications.iter().rev().take(MOST_VERIFICATIONS) {
                tr {
                    td { (format!("{:.0}", record.finished)) }
                    td { (record.level) }
                    td class=(if record.outcome == Outcome::Good { "good" } else { "bad" }) { (record.outcome.as_str()) }
                    td { (record.good) " of " (record.segments) }
                    td { (record.findings) @for finding in record.damage.iter().take(3) { br; (printable(&finding.error)) } }
                    td { (printable(record.host.as_deref().unwrap_or("-"))) }
                }
            } }
        } }
        @if verifications.len() > MOST_VERIFICATIONS {
            p.muted { "And " (verifications.len() - MOST_VERIFICATIONS) " older ones." }
        }
    }
}

fn about(manifest: &Manifest) -> Markup {
    let mut rows = vec![
        ("series", manifest.series.to_string()),
        ("kind", manifest.kind.to_string()),
        ("begun", format!("{:.0}", manifest.created)),
        ("finished", format!("{:.0}", manifest.finished)),
        ("host", manifest.host.clone().unwrap_or_else(|| "-".to_owned())),
        ("tool", manifest.tool.clone()),
        ("codec", crate::catalog::codec(manifest)),
        ("root hash", manifest.root().to_hex().to_string()),
    ];
    if let Some(parent) = manifest.parent {
        rows.push(("continues", parent.to_string()));
    }
    if let Some(until) = manifest.keep_until {
        rows.push(("kept until", format!("{until:.0}")));
    }
    if let Some(producer) = &manifest.producer {
        let status = producer.exit_status.map_or_else(String::new, |status| format!(", exit status {status}"));
        rows.push(("producer", format!("{}{status}", producer.name)));
    }
    let encryption = manifest.encryption.as_ref();
    rows.push(("encryption", encryption.map_or_else(|| "none".to_owned(), crate::catalog::encryption)));
    rows.extend(manifest.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    html! { dl.about { @for (name, value) in rows { dt { (name) } dd { (printable(&value)) } } } }
}

fn hashes(manifest: &Manifest) -> Markup {
    let all = (0..)
        .zip(&manifest.stripes)
        .flat_map(|(nth, stripe): (u16, _)| stripe.segments.iter().map(move |segment| (nth, segment)));
    let left = manifest.segments().saturating_sub(MOST_SEGMENTS);
    html! {
        p.muted { "BLAKE3 of each object as it is stored ("  code { "b3sum" } " prints the same), and of the raw bytes in it." }
        details open[manifest.segments() <= 16] {
            summary { (output::plural(manifest.segments(), "segment")) }
            div.scroll { table {
                thead { tr { th { "segment" } th { "raw" } th { "stored" } th { "hash of the object" } th { "hash of the raw bytes" } } }
                tbody { @for (stripe, segment) in all.take(MOST_SEGMENTS) {
                    tr {
                        td { (format!("s{stripe:02}/{:06}", segment.index)) }
                        td { (output::size(segment.raw_bytes)) }
                        td { (output::size(segment.stored_bytes)) }
                        td { code { (segment.stored_hash.to_hex().as_str()) } }
                        td { code { (segment.raw_hash.to_hex().as_str()) } }
                    }
                } }
            } }
            @if left > 0 { p.muted { "And " (left) " more: " code { "vdstream show --json" } " has all." } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

#[expect(clippy::cast_precision_loss, reason = "for people; two digits are shown")]
fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { "-".to_owned() } else { format!("{:.2}", raw as f64 / stored as f64) }
}

fn rate(bytes: u64, millis: u64) -> String {
    format!("{}/s", output::size(bytes.saturating_mul(1000) / millis.max(1)))
}

/// `340 ms`, `12.3 s`, `4:05 min`, `1:02:03 h`.
fn time(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02} h", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use vdstream::backup::{self, Backup, BackupOptions, Producer, Store, VerifyLevel, VerifyOptions};

    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script><img src=x>\"'&\u{202e}";

    #[track_caller]
    fn assert_harmless(page: &str, times: usize) {
        for markup in ["<script", "<img", "\u{202e}"] {
            assert!(!page.contains(markup), "`{markup}` is on the page:\n{page}");
        }
        assert_eq!(page.matches("&lt;script&gt;").count(), times, "{page}");
    }

    #[tokio::test]
    async fn whoever_can_write_to_the_store_writes_text_and_no_markup() {
        let store = Store::memory();
        let options = BackupOptions::default().label(HOSTILE, HOSTILE).host(Some(HOSTILE.to_owned()));
        let mut backup = Backup::begin(&store, "a", options.producer(Producer::new(HOSTILE))).await.unwrap();
        let mut writer = backup.take_writers().unwrap().remove(0);
        writer.write_all(b"rows").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut manifest = backup.commit().await.unwrap().manifest;
        backup::verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Quick)).await.unwrap();
        let mut verifications = backup::verifications(&store, &manifest).await.unwrap();
        for text in [&mut manifest.tool, &mut manifest.codec.name] {
            HOSTILE.clone_into(text);
        }
        (manifest.codec.level, manifest.codec.lowest_level) = (9, Some(1));
        verifications[0].host = Some(HOSTILE.to_owned());
        let finding = serde_json::json!({"object": HOSTILE, "error": HOSTILE});
        verifications[0].damage.push(serde_json::from_value(finding).unwrap());
        let story = Story::Committed { manifest: &manifest, verifications: &verifications, has_unread: false };
        let page = page(&Facts { url: HOSTILE, series: HOSTILE, story }).unwrap();
        // URL, twice; series; key and value of the label; host, tool, codec, producer; host and finding of the verification.
        assert_harmless(&page, 11);
        assert!(page.contains(" levels 1 to 9<"), "as `show` says it: {page}");
    }

    /// A page was green because the last look was a quick one, and a deep one before it had found damage.
    #[tokio::test]
    async fn the_badge_tells_damage_that_stands_and_how_deep_it_was_looked() {
        let store = Store::memory();
        let mut backup = Backup::begin(&store, "a", BackupOptions::default()).await.unwrap();
        let mut writer = backup.take_writers().unwrap().remove(0);
        writer.write_all(b"rows").await.unwrap();
        writer.shutdown().await.unwrap();
        let manifest = backup.commit().await.unwrap().manifest;
        for level in [VerifyLevel::Full, VerifyLevel::Quick] {
            backup::verify(&store, &manifest, VerifyOptions::new(level)).await.unwrap();
        }
        let mut records = backup::verifications(&store, &manifest).await.unwrap();
        let told = |class, words: &str| (class, words.to_owned());
        assert_eq!(badge(&[], false), told("plain", "committed"));
        assert_eq!(badge(&records, false), told("good", "committed, verified (quick)"));
        let unread = told("plain", "committed, a record of a verification cannot be used");
        assert_eq!((badge(&[], true), badge(&records, true)), (unread.clone(), unread));
        (records[1].segments, records[1].good) = (100, 1);
        assert_eq!(badge(&records, false), told("plain", "committed, verified (quick, 1 of 100 segments)"));
        records[0].outcome = Outcome::Damaged;
        for has_unread in [false, true] {
            let damaged = told("bad", &format!("damaged (full, {:.0})", records[0].finished));
            assert_eq!(badge(&records, has_unread), damaged);
        }
    }

    #[tokio::test]
    async fn the_rate_of_a_resumed_backup_is_that_of_what_its_last_process_took_in() {
        let store = Store::memory();
        let mut backup = Backup::begin(&store, "a", BackupOptions::default()).await.unwrap();
        let mut writer = backup.take_writers().unwrap().remove(0);
        writer.write_all(&[1; 4096]).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut manifest = backup.commit().await.unwrap().manifest;
        let mut page_of = |moved: u64| {
            let course = manifest.course.as_mut().unwrap();
            (course.millis, course.raw_bytes, course.stored_bytes) = (1000, vec![1, moved - 1], vec![1, 1]);
            let story = Story::Committed { manifest: &manifest, verifications: &[], has_unread: false };
            page(&Facts { url: "/a", series: "a", story }).unwrap()
        };
        let tile = |name: &str, value: &str| format!("<dt>{name}</dt><dd>{value}</dd>");
        for (moved, name, rate) in [(4096, "time", "4.0 KiB/s"), (1024, "time of the last process", "1.0 KiB/s")] {
            let page = page_of(moved);
            assert!(page.contains(&tile(name, "1.0 s")) && page.contains(&tile("rate", rate)), "{moved}: {page}");
        }
    }

    #[test]
    fn times_are_as_long_as_their_sense() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1:00 min"),
            (3_723_000, "1:02:03 h"),
        ] {
            assert_eq!(time(millis), text);
        }
        assert_eq!(
            (ratio(3, 2), ratio(1, 0), rate(2048, 1000)),
            ("1.50".to_owned(), "-".to_owned(), "2.0 KiB/s".to_owned())
        );
    }

    #[test]
    fn who_was_waited_for_is_what_progress_said() {
        let who = |change: fn(&mut Course)| {
            let mut course = Course::new(&Default::default(), std::time::Duration::ZERO, 1);
            change(&mut course);
            waits_of(&course).1
        };
        assert_eq!(who(|_| {}), None);
        assert_eq!(who(|course| course.cpu_wait_millis = 1), Some("compression"));
        assert_eq!(who(|course| course.throttled_millis = 1), Some("throttled"));
        assert_eq!(who(|course| course.limited_millis = 1), Some("throttled"));
        let held = |course: &mut Course| (course.store_wait_millis, course.limited_millis) = (64, 1);
        assert_eq!(who(held), Some("throttled"), "64 stripes wait for parts, and the parts for their turn");
        let paused = |course: &mut Course| {
            (course.store_wait_millis, course.throttled_millis, course.store_busy_millis) = (64, 2, 1);
        };
        assert_eq!(who(paused), Some("throttled"), "64 stripes wait for parts, and the parts pause");
        let both = |course: &mut Course| {
            (course.store_wait_millis, course.store_busy_millis) = (64, 3);
            (course.limited_millis, course.throttled_millis) = (2, 2);
        };
        assert_eq!(who(both), Some("throttled"));
        assert_eq!(
            who(|course| (course.store_wait_millis, course.limited_millis, course.store_busy_millis) = (3, 1, 2)),
            Some("upload")
        );
    }

    #[test]
    fn a_failure_says_that_there_is_no_backup_and_nothing_from_outside_is_markup() {
        let attempt = Attempt::default();
        let facts = Facts { url: HOSTILE, series: HOSTILE, story: Story::Failed { attempt: &attempt, why: HOSTILE } };
        let page = page(&facts).unwrap();
        assert!(page.contains("There is no backup"), "{page}");
        assert_harmless(&page, 3);
    }

    #[test]
    fn a_failure_after_which_there_may_be_a_backup_is_not_told_as_none() {
        let attempt = Attempt { may_be_committed: true, ..Attempt::default() };
        let facts = Facts { url: "", series: "a", story: Story::Failed { attempt: &attempt, why: "no answer" } };
        let page = page(&facts).unwrap();
        assert!(page.contains("There may be a backup") && page.contains("no answer"), "{page}");
        assert!(!page.contains("No backup") && !page.contains("Nothing of this attempt"), "{page}");
    }
}
