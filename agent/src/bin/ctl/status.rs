//! `caracal status`: whether all is well, and what is not.

use std::fmt::Write;

use agent::api::client::ClientError;
use agent::api::health::why_not_ready;
use agent::api::schema::Status;
use agent::carrier::counters::CounterValues;

use crate::Exit;
use crate::output::{Format, columns, show};
use crate::target::Target;

pub(crate) fn run(target: &Target, format: Format) -> Result<Exit, ClientError> {
    let status = target.status()?;
    show(format, &status, text);
    let is_well = status.ready && status.store.errors.is_empty() && status.failed.is_empty();
    Ok(if is_well { Exit::Fine } else { Exit::Finding })
}

/// Packets since the carrier's start, and why some were not moved.
fn carried(counters: &CounterValues) -> String {
    let reasons = [
        (counters.dropped_tap_queue, "sent faster than it takes"),
        (counters.dropped_wire_queue, "received faster than it takes"),
        (counters.dropped_too_big, "too big for the path"),
        (
            counters.dropped_send,
            "refused by the kernel on the way out",
        ),
        (counters.dropped_tap, "refused by the kernel on the way in"),
        (counters.dropped_malformed, "malformed"),
        (counters.dropped_frame, "to no node"),
    ];
    let mut text = format!("{} sent, {} received", counters.sent, counters.received);
    for (count, reason) in reasons.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "; {count} dropped: {reason}");
    }
    text
}

fn text(status: &Status) -> String {
    let ready = match status.ready {
        true => String::from("yes"),
        false => format!("no: {}", why_not_ready(status)),
    };
    let synced = match (status.store.synced, status.ready) {
        (true, _) => "synced",
        (false, true) => {
            "not synced: the newest configuration is not in use; the one before goes on"
        }
        (false, false) => "not synced",
    };
    let mut rows = vec![
        [String::from("node"), status.node.clone()],
        [String::from("version"), status.version.clone()],
        [String::from("ready"), ready],
        [String::from("store"), String::from(synced)],
    ];
    if status.draining {
        let text = "yes: every route is said to be used last";
        rows.push([String::from("draining"), String::from(text)]);
    }
    let first = status.tunnel.iter().filter(|_| status.tunnels.is_empty());
    for tunnel in status.tunnels.iter().chain(first) {
        let text = match tunnel.device.is_empty() {
            true => format!("none for {}: {}", tunnel.kind, tunnel.reason),
            false => format!(
                "{} {} mtu {}: {}",
                tunnel.driver, tunnel.device, tunnel.mtu, tunnel.reason
            ),
        };
        rows.push([String::from("tunnel"), text]);
        let carrier = tunnel.carrier.as_ref();
        rows.extend(carrier.map(|carrier| [String::from("carrier"), carried(carrier)]));
    }
    if !status.repairs.is_empty() {
        let repairs = status.repairs.iter();
        let repairs: Vec<_> = repairs
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        rows.push([String::from("repairs"), repairs.join(", ")]);
    }
    if !status.findings.is_empty() {
        let text = format!("{}; `caracal check` tells them", status.findings.len());
        rows.push([String::from("findings"), text]);
    }
    let mut text = String::new();
    for [key, value] in rows {
        let _ = writeln!(text, "{key:<8} {value}");
    }
    if !status.store.errors.is_empty() {
        let rows = status.store.errors.iter().map(|error| {
            [
                error.file.clone(),
                error.object.clone(),
                error.field.clone(),
                error.reason.clone(),
            ]
        });
        let table = columns(["FILE", "OBJECT", "FIELD", "REASON"], rows.collect());
        let _ = write!(text, "\nProblems in the store:\n{table}\n");
    }
    if !status.failed.is_empty() {
        let rows = status.failed.iter().map(|item| {
            [
                item.object.clone(),
                item.attempts.to_string(),
                item.error.clone(),
            ]
        });
        let table = columns(["OBJECT", "ATTEMPTS", "ERROR"], rows.collect());
        let _ = write!(text, "\nFailed objects, tried again:\n{table}\n");
    }
    if !status.last_repairs.is_empty() {
        let rows = status.last_repairs.iter().map(|repair| {
            [
                repair.kind.clone(),
                repair.object.clone(),
                repair.found.clone(),
            ]
        });
        let table = columns(["KIND", "OBJECT", "FOUND"], rows.collect());
        let _ = write!(
            text,
            "\nChanged by others and put right, the newest last:\n{table}\n"
        );
    }
    text
}
