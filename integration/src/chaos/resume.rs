//! What a killed backup left, and a second process that goes on with it.

use super::run::Tool;
use super::trial::{Expect, HEALTHY, Trial};
use crate::server::Kind;

/// What is there after a kill, once everything was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Backups that a reader saw right after the kill.
    pub committed: usize,
    /// What became of the one that was not committed, if anybody went on with it.
    pub resumed: Resumed,
}

/// What became of a killed backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// Nobody went on with it, or nothing of it was there.
    No,
    /// It is whole.
    Whole,
    /// The store cannot tell two processes apart, so nobody may.
    Refused,
}

impl Left {
    /// In words, for the table.
    pub fn describe(self) -> String {
        let what = match (self.committed, self.resumed) {
            (0, Resumed::No) => "no backup",
            (0, Resumed::Whole) => "resumed to the whole backup",
            (0, Resumed::Refused) => "no backup, and no resume on this store",
            _ => "the whole backup",
        };
        format!("{what}, nothing else")
    }
}

impl Trial {
    /// After the tool was killed: with an odd seed another process goes on with what is there, then everything is checked and
    /// collected; with an even one it is collected first, and who then wants to go on is told that it is gone.
    ///
    /// # Errors
    ///
    /// Those of [`Trial::check`]; and when going on fails where it must not, or is let where it must be refused.
    pub fn after_kill(&mut self, seed: u64) -> Result<Left, String> {
        self.come_to_rest()?;
        let before = self.listed()?;
        let left = self.unfinished(&before);
        let resumed = if seed.is_multiple_of(2) { Resumed::No } else { self.resume(&left)? };
        let count = self.check()?;
        if count != before.len() + usize::from(resumed == Resumed::Whole) {
            return Err(format!("{count} backups; before there were {before:?}, and what was resumed: {resumed:?}"));
        }
        if let (Resumed::No, Some(id)) = (resumed, left.first()) {
            let ended = self.start_resume(id).wait(HEALTHY);
            self.judge(&ended, Expect::Failure)?;
        }
        Ok(Left { committed: before.len(), resumed })
    }

    /// The ids of the backups that have an intent and no reader sees.
    fn unfinished(&self, listed: &[String]) -> Vec<String> {
        let names = self.objects();
        let ids = names.iter().filter_map(|name| name.strip_suffix("/intent.json")?.rsplit('/').next());
        ids.filter(|id| !listed.iter().any(|seen| seen == id)).map(str::to_owned).collect()
    }

    fn resume(&mut self, left: &[String]) -> Result<Resumed, String> {
        let [id] = left else {
            return if left.is_empty() { Ok(Resumed::No) } else { Err(format!("one was begun, there are {left:?}")) };
        };
        // It takes every create-only put, so two processes could both believe that a backup is theirs.
        let is_refused = self.place.kind() == Some(Kind::Garage);
        let ended = self.start_resume(id).wait(HEALTHY);
        self.judge(&ended, if is_refused { Expect::Failure } else { Expect::Success })?;
        match is_refused {
            true if ended.stderr.contains("ignores create-only") => Ok(Resumed::Refused),
            true => Err(format!("refused for another reason: {}", ended.stderr)),
            false if ended.stdout.trim() == id => Ok(Resumed::Whole),
            false => Err(format!("{id} was resumed, and it prints {}", ended.stdout)),
        }
    }

    fn start_resume(&self, id: &str) -> Tool {
        let mut command = self.backup_command_from(&self.input().to_string_lossy());
        command.args(["--resume", id, "--silence", "0s"]);
        Tool::start(command)
    }
}
