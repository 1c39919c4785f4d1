//! Our table in nftables: `inet caracal`, read and written by nft, in whole transactions.
//!
//! In: the table that is wanted. Out: a kernel that has it, what had to be repaired, what failed.
//! Other tables are never touched. `contents` says what is wanted for a node; another subject adds
//! its chains, sets and maps there and needs nothing here.
//!
//! A pass costs nothing while nobody else changed the table: `watch` tells when somebody did. If
//! nftables cannot be had, routes are written all the same.

pub mod contents;
pub mod diff;
pub mod model;
pub mod names;
pub mod observe;
pub mod process;
pub mod render;
pub mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::debug;

use self::diff::{Changes, Observed};
use self::model::Table;
use self::names::TABLE;
use self::process::ProgramError;
use super::ApplyReport;
use super::board::Board;
use super::rehearsal::{Difference, Rehearsal};

/// After an nft that hung, nobody shall wait for the next one at each pass.
const PAUSE_AFTER_HANG: Duration = Duration::from_secs(60);
const OBJECT: &str = "nft";

pub struct Nft {
    program: PathBuf,
    /// The wanted table that the kernel had when it was last looked at.
    in_place: Option<Table>,
    /// Nobody changed the table since.
    is_known: bool,
    /// The last transaction failed: what is there may be in its way.
    must_rebuild: bool,
    paused: Option<(Instant, String)>,
    transactions: u64,
    rehearsal: Rehearsal,
}

impl Nft {
    pub fn new(program: PathBuf, rehearsal: Rehearsal) -> Nft {
        Nft {
            program,
            in_place: None,
            is_known: false,
            must_rebuild: false,
            paused: None,
            transactions: 0,
            rehearsal,
        }
    }

    /// Transactions that the kernel took since the start.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// The next `apply` reads the table again.
    pub fn forget(&mut self) {
        self.is_known = false;
    }

    /// Brings `wanted` about; an empty one means no table. Failures are in `report`, with what they
    /// leave undone.
    pub fn apply(&mut self, wanted: &Table, board: &Board, report: &mut ApplyReport) {
        if board.take_stale_tables() {
            self.is_known = false;
        }
        if self.is_known && self.in_place.as_ref() == Some(wanted) {
            return;
        }
        if let Some((until, reason)) = &self.paused {
            if Instant::now() < *until {
                report.fail(OBJECT, unprotected(reason));
                return;
            }
            self.paused = None;
        }
        match self.try_apply(wanted, board, report) {
            Ok(()) => {
                self.must_rebuild = false;
                self.is_known = true;
                self.in_place = Some(wanted.clone());
            }
            Err(error) if wanted.is_empty() && error.has_no_tables() => {}
            Err(error) => {
                self.is_known = false;
                let reason = error.to_string();
                if matches!(error, ProgramError::Hung(_)) {
                    self.paused = Some((Instant::now() + PAUSE_AFTER_HANG, reason.clone()));
                }
                report.fail(OBJECT, unprotected(&reason));
            }
        }
    }

    /// Removes our table, if there is one.
    pub fn uninstall(&mut self, board: &Board, report: &mut ApplyReport) {
        self.forget();
        match self.try_apply(&Table::default(), board, &mut ApplyReport::default()) {
            Err(error) if !error.has_no_tables() => {
                report.fail(format!("nft table inet {TABLE}"), error);
            }
            Ok(()) | Err(_) => {}
        }
        self.in_place = None;
    }

    fn try_apply(
        &mut self,
        wanted: &Table,
        board: &Board,
        report: &mut ApplyReport,
    ) -> Result<(), ProgramError> {
        let observed = match &self.in_place {
            Some(table) if self.is_known => (!table.is_empty()).then(|| Observed::of(table)),
            _ => self.observe()?,
        };
        let mut changes = diff::changes(wanted, observed.as_ref());
        if self.must_rebuild && matches!(changes, Changes::Parts(_)) {
            changes = Changes::Rebuild;
        }
        let script = render::script(wanted, &changes);
        if script.is_empty() {
            return Ok(());
        }
        if self.rehearsal.is_on() {
            self.rehearse(wanted, &changes, observed.is_some());
            return Ok(());
        }
        debug!(script, "changing nftables");
        self.must_rebuild = true;
        process::run(&self.program, &["-f", "-"], &script, |process| {
            board.add_own_process(process);
        })?;
        self.transactions += 1;
        for name in self.drifted(wanted, &changes, observed.is_some()) {
            let found = match observed.is_some() {
                true => "changed",
                false => "missing",
            };
            report.repaired(OBJECT, name, found);
        }
        Ok(())
    }

    fn observe(&self) -> Result<Option<Observed>, ProgramError> {
        let arguments = ["-j", "-n", "list", "table", "inet", TABLE];
        match process::run(&self.program, &arguments, "", drop) {
            Ok(text) => observe::parse(&text)
                .map(Some)
                .map_err(ProgramError::Answer),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rehearse(&self, wanted: &Table, changes: &Changes, is_there: bool) {
        let note = |object: String, present: Option<String>, wanted: Option<String>| {
            self.rehearsal.takes(|| Difference {
                object,
                present,
                wanted,
            });
        };
        let table = format!("nft table inet {TABLE}");
        let all = || {
            let chains = wanted.chains.keys().map(|name| format!("chain {name}"));
            let sets = wanted.sets.iter();
            let sets = sets.map(|(name, set)| format!("set {name} of {}", set.elements.len()));
            chains.chain(sets).collect::<Vec<_>>().join(", ")
        };
        let other = "it has other contents".to_owned();
        match changes {
            Changes::None => {}
            Changes::RemoveTable => note(table, Some("it is there".to_owned()), None),
            Changes::Rebuild => note(table, is_there.then_some(other), Some(all())),
            Changes::Parts(parts) => {
                for (name, present, wanted) in parts.in_words() {
                    note(format!("{table} {name}"), present, wanted);
                }
            }
        }
    }

    /// What was right, was to stay as it was, and had to be written all the same.
    fn drifted<'a>(
        &self,
        wanted: &Table,
        changes: &'a Changes,
        is_there: bool,
    ) -> BTreeSet<&'a str> {
        let Some(before) = self.in_place.as_ref().filter(|before| !before.is_empty()) else {
            return BTreeSet::new();
        };
        match changes {
            Changes::Parts(parts) => {
                let mut names = parts.names();
                names.retain(|name| {
                    before.chains.get(*name) == wanted.chains.get(*name)
                        && before.sets.get(*name) == wanted.sets.get(*name)
                });
                names
            }
            Changes::Rebuild if !is_there || before == wanted => BTreeSet::from([TABLE]),
            Changes::None | Changes::Rebuild | Changes::RemoveTable => BTreeSet::new(),
        }
    }
}

fn unprotected(reason: &str) -> String {
    format!(
        "{reason}; routes work without, but tunnelled packets are taken from any address, and \
         workloads may use any source"
    )
}
