//! What a rule changes of the routes it accepts.

use bgp::policy::Operation;

use super::{community, priority, read_asns};
use crate::model::fields::Fields;

/// Most operations of a rule, and AS numbers of one of them.
const MAX: usize = 10;
const KINDS: [&str; 3] = ["addCommunity", "prependASPath", "setPriority"];

/// In order; empty if there are none.
pub(super) fn read(rule: &mut Fields<'_, '_>) -> Vec<Operation> {
    let count = rule.length("operations");
    let operations = rule.mappings("operations", read_one);
    match count {
        Some(0) => rule.reject("operations", "empty; write at least one, or remove it"),
        Some(count) if count > MAX => rule.reject(
            "operations",
            format!("{count} operations; write {MAX} at most"),
        ),
        Some(_) | None => {}
    }
    operations
}

fn read_one(operation: &mut Fields<'_, '_>) -> Option<Operation> {
    let given: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| operation.has(kind))
        .collect();
    let community = read_add_community(operation);
    let path = read_prepend_as_path(operation);
    let priority = read_set_priority(operation);
    match given.as_slice() {
        [_] => community.or(path).or(priority),
        [] => {
            operation.reject(
                "",
                format!("no operation; write one of {}", KINDS.join(", ")),
            );
            None
        }
        [first, others @ ..] => {
            for other in others {
                operation.reject(
                    other,
                    format!("{first} is given as well; write an operation for each"),
                );
            }
            None
        }
    }
}

fn read_add_community(operation: &mut Fields<'_, '_>) -> Option<Operation> {
    let mut fields = operation.mapping("addCommunity")?;
    let value = fields.required("value", "write the community to add", community);
    fields.finish();
    value.map(Operation::AddCommunity)
}

fn read_prepend_as_path(operation: &mut Fields<'_, '_>) -> Option<Operation> {
    let mut fields = operation.mapping("prependASPath")?;
    let is_given = fields.has("prefix");
    let asns = read_asns(&mut fields, "prefix");
    match (is_given, fields.length("prefix")) {
        (false, _) => fields.reject("prefix", "missing; write the AS numbers to prepend"),
        (true, Some(0)) => fields.reject("prefix", "empty; write at least one AS number"),
        (true, Some(count)) if count > MAX => {
            fields.reject("prefix", format!("{count} AS numbers; write {MAX} at most"));
        }
        (true, Some(_) | None) => {}
    }
    fields.finish();
    Some(Operation::PrependAsPath(asns))
}

fn read_set_priority(operation: &mut Fields<'_, '_>) -> Option<Operation> {
    let mut fields = operation.mapping("setPriority")?;
    let value = fields.required("value", "write the priority to set", priority);
    fields.finish();
    value.map(Operation::SetPriority)
}
