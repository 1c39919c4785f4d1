//! What other programs' firewalls do with forwarded packets, as far as it stops workloads.
//!
//! Pure. In: what nft prints in JSON, what `iptables-legacy -S` prints. Out: the chains that drop
//! or reject what none of their rules accepts, and whether one accepts all of workloads.

use serde_json::Value as Json;

use crate::dataplane::nft::names::TABLE;

/// Names of kube-proxy's chains begin so. It refuses connections to services that have nobody to answer,
/// which workloads' would not be if they were accepted before.
const KUBE_PROXY: &str = "KUBE-";
/// The comment of our rules in others' chains.
pub const TAG: &str = "caracal";
/// Workloads' interfaces, as nft and as iptables match them.
const PATTERN: &str = "cara*";
const LEGACY_PATTERN: &str = "cara+";

/// A chain of somebody else at the hook of forwarded IPv4 packets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ForwardChain {
    pub family: String,
    pub table: String,
    pub name: String,
    does_policy_drop: bool,
}

impl ForwardChain {
    pub fn shown(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

/// Which way packets go through a workload's interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    From,
    To,
}

impl Way {
    pub const ALL: [Way; 2] = [Way::From, Way::To];

    /// The key of nft's expression `meta`.
    fn key(self) -> &'static str {
        match self {
            Way::From => "iifname",
            Way::To => "oifname",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Way::From => "-i",
            Way::To => "-o",
        }
    }

    /// Our rule in a foreign chain, without its comment.
    pub fn rule(self) -> String {
        format!("{} \"{PATTERN}\" counter accept", self.key())
    }

    /// The same for iptables-legacy, behind `-I FORWARD` or `-D FORWARD`.
    pub fn legacy_rule(self) -> [&'static str; 8] {
        [
            self.option(),
            LEGACY_PATTERN,
            "-m",
            "comment",
            "--comment",
            TAG,
            "-j",
            "ACCEPT",
        ]
    }
}

/// What a chain does with packets of workloads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Treatment {
    /// What no rule accepts is dropped or rejected.
    pub is_blocking: bool,
    /// A rule, ours or not, accepts all that goes this way.
    pub accepted: Vec<Way>,
    /// In their order.
    pub tagged: Vec<Tagged>,
    /// The last rule that leads to a chain of kube-proxy, of those that packets come to: its handle, or
    /// with iptables its number.
    pub last_to_kube_proxy: Option<u64>,
}

/// A rule of ours, and its handle; iptables has none.
pub type Tagged = (Way, Option<u64>);

impl Treatment {
    /// The ways on which packets of workloads depend on rules that we do not understand.
    pub fn blocked(&self) -> Vec<Way> {
        let is_blocked = |way: &Way| self.is_blocking && !self.accepted.contains(way);
        Way::ALL.into_iter().filter(is_blocked).collect()
    }

    /// Our rules behind another of the same way: a program that was inserting them outlived the agent
    /// that had started it.
    pub fn surplus(&self) -> Vec<Tagged> {
        let others = |at: usize| self.tagged.iter().take(at);
        let is_second = |(at, (way, _)): &(usize, &Tagged)| others(*at).any(|(one, _)| one == way);
        let tagged = self.tagged.iter().enumerate();
        tagged.filter(is_second).map(|(_, rule)| *rule).collect()
    }
}

/// The foreign chains in what `nft -j list chains` prints.
///
/// # Errors
/// What is wrong with the text.
pub fn forward_chains(text: &str) -> Result<Vec<ForwardChain>, String> {
    let chain = |object: &Json| {
        let chain = object.get("chain")?;
        let text = |key: &str| chain.get(key).and_then(Json::as_str);
        let (family, table) = (text("family")?, text("table")?);
        let is_ours = (family, table) == ("inet", TABLE);
        let is_forward = text("hook") == Some("forward") && ["ip", "inet"].contains(&family);
        let chain = ForwardChain {
            family: family.to_owned(),
            table: table.to_owned(),
            name: text("name")?.to_owned(),
            does_policy_drop: text("policy") == Some("drop"),
        };
        let can_be_named = [&chain.table, &chain.name]
            .into_iter()
            .all(|name| is_name(name));
        (is_forward && !is_ours && can_be_named).then_some(chain)
    };
    let mut chains: Vec<ForwardChain> = objects(text)?.iter().filter_map(chain).collect();
    chains.sort();
    Ok(chains)
}

/// Whether it can stand in a script as it is.
fn is_name(name: &str) -> bool {
    let is_fine = |octet: u8| octet.is_ascii_alphanumeric() || b"_-./".contains(&octet);
    name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(is_fine)
}

/// Reads what `nft -j list chain …` prints of `chain`.
///
/// # Errors
/// What is wrong with the text.
pub fn treatment(chain: &ForwardChain, text: &str) -> Result<Treatment, String> {
    let mut treatment = Treatment {
        is_blocking: chain.does_policy_drop,
        ..Treatment::default()
    };
    // By a rule: nothing comes to those behind it.
    let mut is_ended = false;
    for rule in objects(text)?
        .iter()
        .filter_map(|object| object.get("rule"))
    {
        let statements = rule.get("expr").and_then(Json::as_array);
        let statements = statements.map(Vec::as_slice).unwrap_or_default();
        let handle = rule.get("handle").and_then(Json::as_u64);
        if !is_ended && statements.iter().any(leads_to_kube_proxy) {
            treatment.last_to_kube_proxy = handle;
        }
        let relevant: Vec<&Json> = statements.iter().filter(|one| decides(one)).collect();
        match relevant.as_slice() {
            [verdict] if is_verdict(verdict, &["drop", "reject"]) => {
                treatment.is_blocking = true;
                is_ended = true;
            }
            [condition, verdict] if is_verdict(verdict, &["accept"]) => {
                let Some(way) = Way::ALL.into_iter().find(|way| is_on(condition, *way)) else {
                    continue;
                };
                treatment.accepted.push(way);
                if rule.get("comment").and_then(Json::as_str) == Some(TAG) {
                    treatment.tagged.push((way, handle));
                }
            }
            _ => {}
        }
    }
    Ok(treatment)
}

/// Reads what `iptables-legacy -S FORWARD` prints.
pub fn legacy_treatment(text: &str) -> Treatment {
    let mut treatment = Treatment::default();
    let mut number = 0;
    let mut is_ended = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        number += u64::from(words.starts_with(&["-A", "FORWARD"]));
        if let ["-A", "FORWARD", .., "-j" | "-g", target] = words.as_slice()
            && !is_ended
            && target.starts_with(KUBE_PROXY)
        {
            treatment.last_to_kube_proxy = Some(number);
        }
        match words.as_slice() {
            ["-P", "FORWARD", "DROP"] => treatment.is_blocking = true,
            ["-A", "FORWARD", "-j", "DROP"] | ["-A", "FORWARD", "-j", "REJECT", ..] => {
                treatment.is_blocking = true;
                is_ended = true;
            }
            ["-A", "FORWARD", option, LEGACY_PATTERN, rest @ ..] => {
                let Some(way) = Way::ALL.into_iter().find(|way| way.option() == *option) else {
                    continue;
                };
                let is_tagged = *rest == way.legacy_rule()[2..];
                if is_tagged {
                    treatment.tagged.push((way, None));
                }
                if is_tagged || *rest == ["-j", "ACCEPT"] {
                    treatment.accepted.push(way);
                }
            }
            _ => {}
        }
    }
    treatment
}

fn objects(text: &str) -> Result<Vec<Json>, String> {
    let mut json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match json.get_mut("nftables").map(Json::take) {
        Some(Json::Array(objects)) => Ok(objects),
        _ => Err("no list `nftables`".to_owned()),
    }
}

/// Whether a statement is a condition or a verdict; iptables writes its comments as statements.
fn decides(statement: &Json) -> bool {
    let is_comment = statement
        .get("xt")
        .is_some_and(|xt| xt.get("name").and_then(Json::as_str) == Some("comment"));
    !is_comment && statement.get("counter").is_none() && statement.get("log").is_none()
}

fn leads_to_kube_proxy(statement: &Json) -> bool {
    let target = |verb| statement.get(verb)?.get("target")?.as_str();
    let mut targets = ["jump", "goto"].into_iter().filter_map(target);
    targets.any(|target| target.starts_with(KUBE_PROXY))
}

fn is_verdict(statement: &Json, names: &[&str]) -> bool {
    names.iter().any(|name| statement.get(name).is_some())
}

fn is_on(condition: &Json, way: Way) -> bool {
    let is_match = || {
        let condition = condition.get("match")?;
        let key = condition.get("left")?.get("meta")?.get("key")?.as_str()?;
        let is_equal = condition.get("op")?.as_str()? == "==";
        Some(is_equal && key == way.key() && condition.get("right")?.as_str()? == PATTERN)
    };
    is_match() == Some(true)
}

#[cfg(test)]
mod tests;
