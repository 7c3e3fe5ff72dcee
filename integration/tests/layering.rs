//! A module of the library imports only from those to its left: reads every path in `src/` and fails on a wrong arrow.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use integration::tool;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Each module of the crate's root, with the modules that it may name. The base is open to all but itself knows nobody.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("error", BASE),
    ("sync", BASE),
    ("clock", BASE),
    ("meter", BASE),
    ("buffer", BASE),
    ("shm", &["buffer"]),
    ("vdi", &["buffer", "shm"]),
    ("stream", &["buffer", "shm", "vdi"]),
    ("pipeline", &["buffer"]),
    ("backup", &["buffer", "shm", "vdi", "stream", "pipeline"]),
    ("testing", &["buffer", "shm", "vdi", "stream", "pipeline", "backup"]),
    ("manual", BASE),
];

/// What everyone may name.
const BASE: &[&str] = &["error", "sync", "clock", "meter"];

/// The modules that see stored objects.
const MAY_SEE_OBJECT_STORE: &[&str] = &["error", "pipeline", "backup", "testing"];

#[test]
fn no_module_names_one_to_its_right() {
    let mut wrong = Vec::new();
    let mut files = 0;
    for file in sources(&tool::repository().join("src")) {
        let module = module_of(&file);
        let Some(room) = module.first() else { continue };
        files += 1;
        for name in names(&file, &module) {
            if !may_name(room, &name) {
                wrong.push(format!("{}:{}: {room} may not name {}", file.display(), name.line, name.target));
            }
        }
    }
    assert!(files > 5, "the sources were not found");
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_its_place_in_the_order() {
    let lib = fs::read_to_string(tool::repository().join("src/lib.rs")).unwrap();
    for line in lib.lines() {
        let line = line.trim();
        let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        let Some(name) = line.strip_prefix("mod ") else { continue };
        let name = name.trim_end_matches([';', ' ', '{']);
        assert!(
            name == "tests" || MAY_NAME.iter().any(|(room, _)| *room == name),
            "say in this test what `{name}` may name"
        );
    }
}

/// The reader itself is tested: a test that finds nothing because it reads nothing would pass for ever.
#[test]
fn the_reader_sees_every_way_to_name_a_module() {
    let seen = |text: &str, module: &[&str]| -> Vec<String> {
        let module: Vec<_> = module.iter().map(|part| (*part).to_owned()).collect();
        let mut names = Vec::new();
        collect(text.parse().unwrap(), &module, &mut names);
        names.into_iter().map(|name| name.target).collect()
    };
    assert_eq!(seen("use crate::vdi::Status;", &["pipeline", "x"]), ["vdi"]);
    assert_eq!(seen("use crate::{error::Error, vdi::{a, b}, backup};", &["pipeline", "x"]), ["error", "vdi", "backup"]);
    assert_eq!(seen("fn f() { let x = crate::stream::open(); }", &["pipeline", "x"]), ["stream"]);
    assert_eq!(seen("use super::super::vdi;", &["pipeline", "x"]), ["vdi"]);
    assert_eq!(seen("use super::vdi;", &["pipeline"]), ["vdi"]);
    assert_eq!(seen("use super::backup;", &["pipeline", "x"]), [""; 0], "pipeline/backup.rs is its own");
    assert_eq!(seen("mod tests { use super::backup; }", &["pipeline"]), [""; 0], "a module inside the file");
    assert_eq!(seen("mod tests { use super::super::backup; }", &["pipeline"]), ["backup"]);
    assert_eq!(seen("pub(crate) fn f() {}", &["pipeline"]), [""; 0]);
    assert_eq!(seen("/// See [`crate::vdi`].\nfn f() {}", &["pipeline"]), [""; 0], "a link is not an import");
    assert_eq!(seen("assert!(crate::vdi::open());", &["pipeline"]), ["vdi"], "inside a macro call");
    assert_eq!(seen("use object_store::path::Path;", &["pipeline"]), ["object_store"]);
}

/// Something that a file names: a module of the root, or the crate `object_store`.
struct Name {
    target: String,
    line: usize,
    /// Where it is named.
    module: Vec<String>,
}

fn may_name(room: &str, name: &Name) -> bool {
    let target = name.target.as_str();
    if target == "object_store" {
        return MAY_SEE_OBJECT_STORE.contains(&room);
    }
    if matches!(target, "Error" | "ErrorKind" | "Result") {
        // The one re-export of the root that everyone uses: it lies in `error`.
        return true;
    }
    if target == room || BASE.contains(&target) || name.module.iter().any(|part| part == "tests") && target == "testing"
    {
        return true;
    }
    // What is no room of ours is an item of the root, such as a re-export: those are for users, not for ourselves.
    let (_, allowed) =
        MAY_NAME.iter().find(|(known, _)| *known == room).unwrap_or_else(|| panic!("unknown room {room}"));
    allowed.contains(&target)
}

/// What the file at `module` names.
fn names(file: &Path, module: &[String]) -> Vec<Name> {
    let text = fs::read_to_string(file).unwrap();
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut names = Vec::new();
    collect(tokens, module, &mut names);
    names
}

fn collect(tokens: TokenStream, module: &[String], names: &mut Vec<Name>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "mod" => {
                // `mod name { … }` opens a module; `mod name;` does not.
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    let inner: Vec<_> = module.iter().cloned().chain([name.to_string()]).collect();
                    collect(body.stream(), &inner, names);
                    at += 3;
                    continue;
                }
            }
            TokenTree::Ident(word) if word == "crate" && is_path_separator(&tokens, at + 1) => {
                add_targets(&tokens[at + 3..], module, names);
            }
            TokenTree::Ident(word) if word == "super" && !is_path_separator(&tokens, at.wrapping_sub(2)) => {
                let mut supers = 0;
                while matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == "super")
                    && is_path_separator(&tokens, at + 1)
                {
                    supers += 1;
                    at += 3;
                }
                // `pub(super)` has no path behind it.
                if supers > 0 {
                    if supers == module.len() {
                        add_targets(&tokens[at..], module, names);
                    }
                    continue;
                }
            }
            TokenTree::Ident(word) if word == "object_store" => {
                let line = word.span().start().line;
                names.push(Name { target: "object_store".to_owned(), line, module: module.to_vec() });
            }
            TokenTree::Group(group) => collect(group.stream(), module, names),
            _ => {}
        }
        at += 1;
    }
}

/// The first name of a path below the root, or of each path in braces.
fn add_targets(tokens: &[TokenTree], module: &[String], names: &mut Vec<Name>) {
    match tokens.first() {
        Some(TokenTree::Ident(word)) => {
            let line = word.span().start().line;
            names.push(Name { target: word.to_string(), line, module: module.to_vec() });
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let inner: Vec<_> = group.stream().into_iter().collect();
            for path in inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
                add_targets(path, module, names);
            }
        }
        _ => {}
    }
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at.wrapping_add(1))
}

/// `src/pipeline/x.rs` is `[pipeline, x]`, `src/pipeline/mod.rs` is `[pipeline]`, `src/lib.rs` is `[]`; the binary is not looked at.
fn module_of(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(tool::repository().join("src")).unwrap().with_extension("");
    let mut parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.first().is_some_and(|first| first == "bin" || first == "lib") {
        return Vec::new();
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    tool::files_below(dir)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
