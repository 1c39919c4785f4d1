//! `caracal endpoints`: the workloads of this node.

use agent::api::client::ClientError;
use agent::api::schema::{EndpointStatus, Items};

use crate::Exit;
use crate::output::{Format, columns, or_dash, show};
use crate::target::Target;

pub(crate) fn run(target: &Target, format: Format) -> Result<Exit, ClientError> {
    show(format, &target.endpoints()?, table);
    Ok(Exit::Fine)
}

fn table(endpoints: &Items<EndpointStatus>) -> String {
    let rows = endpoints.items.iter().map(|endpoint| {
        let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
        let state = match &endpoint.error {
            Some(error) => format!("{}: {error}", endpoint.state),
            None => endpoint.state.clone(),
        };
        [
            endpoint.workload.clone(),
            endpoint.iface.clone(),
            addresses.join(","),
            or_dash(endpoint.mac.as_ref()),
            // As many digits as container runtimes show.
            or_dash(
                endpoint
                    .container_id
                    .as_ref()
                    .map(|id| id.chars().take(12).collect::<String>()),
            ),
            state,
        ]
    });
    let header = [
        "WORKLOAD",
        "INTERFACE",
        "ADDRESSES",
        "MAC",
        "CONTAINER",
        "STATE",
    ];
    columns(header, rows.collect())
}
