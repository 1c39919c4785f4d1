//! Host firewalls that do not forward for workloads: found, and opened where that is asked for.
//!
//! In: whether to open them. Out: what was found, and rules with our tag in front of the chains in
//! question, behind only what leads to kube-proxy's. A verdict to drop is final wherever it falls
//! (nft(8), VERDICT STATEMENTS), so no rule of our own table could help: it has to be in the chain that
//! drops. Those rules are the only thing of ours in anybody else's table; everything else in there is
//! left alone.

mod forward;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::debug;

use self::forward::{ForwardChain, TAG, Tagged, Treatment, Way};
use super::ApplyReport;
use super::nft::process::{self, ProgramError};
use super::rehearsal::{Difference, Rehearsal};
use crate::crash::crash_point;

const OBJECT: &str = "host firewall";
/// Each look takes processes, and some programs write their chains again and again.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
const LEGACY: &str = "iptables-legacy";
/// The tables of legacy iptables that exist; asking iptables would make one.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// Other programs hold the lock of iptables for moments.
const LEGACY_WAIT: [&str; 2] = ["-w", "5"];

pub struct HostFirewall {
    nft_program: PathBuf,
    does_insert: bool,
    /// What stands in the way of workloads, as last looked.
    findings: Vec<String>,
    /// Whether there were workloads, when last looked. `None`: look again.
    looked_with: Option<bool>,
    /// When last looked.
    looked_at: Option<Instant>,
    /// A chain was changed since.
    is_changed: bool,
    /// Chains that had our rules when last looked.
    opened: BTreeSet<String>,
    rehearsal: Rehearsal,
}

impl HostFirewall {
    pub fn new(nft_program: PathBuf, does_insert: bool, rehearsal: Rehearsal) -> HostFirewall {
        HostFirewall {
            nft_program,
            does_insert,
            findings: Vec::new(),
            looked_with: None,
            looked_at: None,
            is_changed: false,
            opened: BTreeSet::new(),
            rehearsal,
        }
    }

    /// The next `apply` looks again. Of changed rules, and of legacy iptables, nobody is told in a way
    /// that is cheap to hear.
    pub fn forget(&mut self) {
        self.looked_with = None;
    }

    /// The kernel told that a chain is another: `apply` looks again, but not all the time.
    pub fn note_change(&mut self) {
        self.is_changed = true;
    }

    /// Looks, if it is time, and opens or closes what is to be opened or closed.
    pub fn apply(&mut self, has_workloads: bool, report: &mut ApplyReport) {
        if self.is_changed {
            let waited = self.looked_at.map_or(BETWEEN_LOOKS, |at| at.elapsed());
            match BETWEEN_LOOKS.saturating_sub(waited) {
                Duration::ZERO => self.forget(),
                rest => report.call_again(rest),
            }
        }
        if self.looked_with != Some(has_workloads) {
            self.looked_with = Some(has_workloads);
            self.looked_at = Some(Instant::now());
            self.is_changed = false;
            self.findings.clear();
            let is_open = self.does_insert && has_workloads;
            let failures = report.failed.len();
            let opened_before = std::mem::take(&mut self.opened);
            self.adjust(has_workloads, is_open, &opened_before, report);
            if report.failed.len() > failures {
                self.looked_with = None;
            }
        }
        report.findings.extend(
            self.findings
                .iter()
                .map(|finding| (OBJECT.to_owned(), finding.clone())),
        );
    }

    /// Removes our rules.
    pub fn uninstall(&mut self, report: &mut ApplyReport) {
        self.adjust(false, false, &BTreeSet::new(), report);
    }

    fn adjust(
        &mut self,
        has_workloads: bool,
        is_open: bool,
        opened_before: &BTreeSet<String>,
        report: &mut ApplyReport,
    ) {
        for firewall in self.observe(report) {
            let shown = firewall.shown();
            let treatment = &firewall.treatment;
            let blocked = treatment.blocked();
            let outcome = match (is_open, blocked.is_empty()) {
                (true, false) => self.insert(&firewall, &blocked),
                (true, true) => self.remove(&firewall, &treatment.surplus()),
                (false, _) => self.remove(&firewall, &treatment.tagged),
            };
            match outcome {
                Err(error) => report.fail(format!("{OBJECT} {shown}"), error),
                Ok(()) if is_open && !blocked.is_empty() => {
                    if opened_before.contains(&shown) {
                        report.repaired(OBJECT, &shown, "our rules missing");
                    }
                    self.opened.insert(shown);
                    continue;
                }
                Ok(()) if is_open && !treatment.tagged.is_empty() => {
                    self.opened.insert(shown.clone());
                }
                Ok(()) => {}
            }
            // Without our rules, which are gone now if they were not asked for.
            let mut others = treatment.clone();
            if !is_open {
                let is_ours = |way: &Way| others.tagged.iter().any(|(tagged, _)| tagged == way);
                let accepted = others.accepted.iter().copied();
                others.accepted = accepted.filter(|way| !is_ours(way)).collect();
            }
            if has_workloads && !others.blocked().is_empty() {
                self.findings.push(finding(&shown));
            }
        }
    }

    /// Every firewall that forwarded packets pass; what cannot be read is a debug line, since nft
    /// itself is reported elsewhere.
    fn observe(&mut self, report: &mut ApplyReport) -> Vec<Firewall> {
        let mut firewalls = Vec::new();
        match self.observe_nft() {
            Ok(found) => firewalls.extend(found),
            Err(error) => debug!(%error, "firewalls in nftables cannot be read"),
        }
        let tables = std::fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            match process::run(Path::new(LEGACY), &["-S", "FORWARD"], "", drop) {
                Ok(text) => firewalls.push(Firewall {
                    chain: None,
                    treatment: forward::legacy_treatment(&text),
                }),
                Err(ProgramError::Missing(_)) => self.findings.push(format!(
                    "there are tables of {LEGACY}, and no {LEGACY} to read them: \
                     whether workloads' packets are forwarded is not known"
                )),
                Err(error) => report.fail(format!("{OBJECT} {LEGACY}"), error),
            }
        }
        firewalls
    }

    fn observe_nft(&self) -> Result<Vec<Firewall>, ProgramError> {
        let answer = self.nft(&["-j", "list", "chains"], "")?;
        let chains = forward::forward_chains(&answer).map_err(ProgramError::Answer)?;
        let mut firewalls = Vec::new();
        for chain in chains {
            let list = [
                "-j",
                "list",
                "chain",
                &chain.family,
                &chain.table,
                &chain.name,
            ];
            let text = match self.nft(&list, "") {
                Err(error) if error.is_not_found() => continue,
                answer => answer?,
            };
            let treatment = forward::treatment(&chain, &text).map_err(ProgramError::Answer)?;
            firewalls.push(Firewall {
                chain: Some(chain),
                treatment,
            });
        }
        Ok(firewalls)
    }

    fn insert(&self, firewall: &Firewall, ways: &[Way]) -> Result<(), ProgramError> {
        if self.rehearsal.takes(|| Difference {
            object: format!("{OBJECT} {}", firewall.shown()),
            present: None,
            wanted: Some("rules that accept what comes from and goes to cara*".to_owned()),
        }) {
            return Ok(());
        }
        let last_to_kube_proxy = firewall.treatment.last_to_kube_proxy;
        let Some(chain) = &firewall.chain else {
            let number = last_to_kube_proxy.map(|number| (number + 1).to_string());
            return legacy("-I", number.as_deref(), ways.iter().copied());
        };
        let place = match last_to_kube_proxy {
            Some(handle) => format!("add rule {} handle {handle}", chain.shown()),
            None => format!("insert rule {}", chain.shown()),
        };
        let rules = ways
            .iter()
            .map(|way| format!("{place} {} comment \"{TAG}\"\n", way.rule()));
        let script: String = rules.collect();
        self.nft(&["-f", "-"], &script).map(drop)
    }

    fn remove(&self, firewall: &Firewall, rules: &[Tagged]) -> Result<(), ProgramError> {
        if rules.is_empty() {
            return Ok(());
        }
        if self.rehearsal.takes(|| Difference {
            object: format!("{OBJECT} {}", firewall.shown()),
            present: Some(format!("rules with the comment {TAG}")),
            wanted: None,
        }) {
            return Ok(());
        }
        let Some(chain) = &firewall.chain else {
            return legacy("-D", None, rules.iter().map(|(way, _)| *way));
        };
        let place = chain.shown();
        let handles = rules.iter().filter_map(|(_, handle)| *handle);
        let rules = handles.map(|handle| format!("delete rule {place} handle {handle}\n"));
        let script: String = rules.collect();
        self.nft(&["-f", "-"], &script).map(drop)
    }

    fn nft(&self, arguments: &[&str], script: &str) -> Result<String, ProgramError> {
        process::run(&self.nft_program, arguments, script, drop)
    }
}

struct Firewall {
    /// `None`: legacy iptables.
    chain: Option<ForwardChain>,
    treatment: Treatment,
}

impl Firewall {
    fn shown(&self) -> String {
        match &self.chain {
            Some(chain) => chain.shown(),
            None => format!("{LEGACY} FORWARD"),
        }
    }
}

fn legacy(
    verb: &str,
    number: Option<&str>,
    ways: impl Iterator<Item = Way>,
) -> Result<(), ProgramError> {
    for way in ways {
        let mut arguments = LEGACY_WAIT.to_vec();
        arguments.extend([verb, "FORWARD"]);
        arguments.extend(number);
        arguments.extend(way.legacy_rule());
        let started = |_| crash_point(format_args!("{LEGACY} {verb} started"));
        process::run(Path::new(LEGACY), &arguments, "", started)?;
        crash_point(format_args!("{LEGACY} {verb} ended"));
    }
    Ok(())
}

fn finding(place: &str) -> String {
    format!(
        "chain {place} stops what no rule of it accepts, and none accepts all of workloads \
         (cara*): their packets may not be forwarded; accept them there, or set hostFirewall: insert"
    )
}
