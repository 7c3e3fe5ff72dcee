//! Progress for people and for programs.

use integration::place::Place;
use integration::tool::repository;
use serde_json::Value;

use crate::support::*;

/// The members of the event as the manual lists them, `a.b` for one inside another.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("src/manual/progress.md")).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| member ")).take_while(|line| line.starts_with('|'));
    let rows = table.filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

fn members(value: &Value, prefix: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let name = format!("{prefix}{name}");
                match inner {
                    Value::Object(_) => members(inner, &format!("{name}."), into),
                    Value::Array(items) => {
                        into.push(format!("{name}[]"));
                        items.iter().for_each(|item| members(item, &format!("{name}[]."), into));
                    }
                    _ => into.push(name),
                }
            }
        }
        _ => into.push(prefix.to_owned()),
    }
}

fn events(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("a JSON document")).collect()
}

#[test]
fn every_event_has_the_documented_members_and_no_other() {
    let place = Place::disk();
    let script = "for i in 1 2 3; do head -c 1000000 /dev/urandom; sleep 0.5; done";
    let made =
        run(&place, &["backup", &place.url(), "--progress", "json", "--expect-size", "6MB", "--", "sh", "-c", script]);
    assert!(made.status.success(), "{}", stderr(&made));
    let restored = run(&place, &["restore", &place.url(), "latest", "--progress", "json", "--output", "/dev/null"]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    let mut expected = documented();
    expected.sort();
    assert!(expected.len() > 15, "{expected:?}");
    let (backup, restore) = (events(&stderr(&made)), events(&stderr(&restored)));
    assert!(backup.len() >= 2 && !restore.is_empty(), "a line per second, and one at the end");
    for event in backup.iter().chain(&restore) {
        let mut found = Vec::new();
        members(event, "", &mut found);
        found.sort();
        found.dedup();
        assert_eq!(found, expected, "{event}");
    }
    let last = backup.last().unwrap();
    assert_eq!(
        (&last["direction"], &last["raw_bytes"], &last["total_bytes"]),
        (&"backup".into(), &3_000_000.into(), &6_000_000.into())
    );
    assert_eq!(last["bottleneck"], "producer");
    assert!(last["eta_seconds"].as_u64().is_some(), "{last}");
    assert_eq!(last["stripes"][0]["position"], 3_000_000);
    let last = restore.last().unwrap();
    assert_eq!(
        (&last["direction"], &last["raw_bytes"], &last["total_bytes"]),
        (&"restore".into(), &3_000_000.into(), &3_000_000.into())
    );
}

#[test]
fn no_progress_is_shown_where_it_was_not_asked_for() {
    let place = Place::disk();
    for (options, lines) in
        [(&["--progress", "none"][..], 2), (&["--quiet"], 0), (&["--quiet", "--progress", "json"], 0)]
    {
        let made = run(&place, &[&["backup", &place.url()], options, &["--", "sleep", "1.2"]].concat());
        assert!(made.status.success(), "{}", stderr(&made));
        assert_eq!(stderr(&made).lines().count(), lines, "{options:?}: {}", stderr(&made));
    }
}
