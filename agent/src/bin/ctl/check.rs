//! `caracal check`: everything that is wrong with this node or in its way, a line each.

use agent::api::client::ClientError;
use agent::api::health::why_not_ready;
use agent::api::schema::{Finding, Items, Status};

use crate::Exit;
use crate::output::{Format, columns, show};
use crate::target::Target;

pub(crate) fn run(target: &Target, format: Format) -> Result<Exit, ClientError> {
    let findings = Items::new(findings(&target.status()?));
    show(format, &findings, text);
    Ok(match findings.items.is_empty() {
        true => Exit::Fine,
        false => Exit::Finding,
    })
}

fn findings(status: &Status) -> Vec<Finding> {
    let finding = |object: &str, reason: String| Finding {
        object: object.to_owned(),
        reason,
    };
    let not_ready = (!status.ready).then(|| finding("ready", why_not_ready(status)));
    let store = status
        .store
        .errors
        .iter()
        .map(|error| finding(&error.object, error.to_string()));
    let failed = status
        .failed
        .iter()
        .map(|item| finding(&item.object, item.error.clone()));
    not_ready
        .into_iter()
        .chain(store)
        .chain(failed)
        .chain(status.findings.iter().cloned())
        .collect()
}

fn text(findings: &Items<Finding>) -> String {
    if findings.items.is_empty() {
        return String::from("nothing found");
    }
    let rows = findings
        .items
        .iter()
        .map(|one| [one.object.clone(), one.reason.clone()]);
    columns(["OBJECT", "FINDING"], rows.collect())
}
