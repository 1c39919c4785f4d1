//! NetworkManager: whether a file names our interfaces as not its own.
//!
//! Pure.

use super::{ConfigurationFile, settings};

/// Whose files come before others of the same name.
pub(super) const DIRECTORIES: [&str; 3] = [
    "etc/NetworkManager",
    "run/NetworkManager",
    "usr/lib/NetworkManager",
];
const DEVICES: &str = "interface-name:cara*";

/// What is wrong for us with these files.
pub(super) fn finding(configuration: &[ConfigurationFile]) -> Option<String> {
    let names_ours = |value: &str| {
        let mut specs = value.split([',', ';']).map(str::trim);
        specs.any(|spec| spec == DEVICES)
    };
    let mut settings = configuration.iter().flat_map(|file| settings(&file.text));
    let is_kept_off = settings.any(|(section, key, value)| {
        let is_list = match key.trim_end_matches('+') {
            "unmanaged-devices" => section == "keyfile",
            "match-device" => section.starts_with("device"),
            _ => false,
        };
        is_list && names_ours(&value)
    });
    (!is_kept_off).then(|| {
        "no file keeps it off our interfaces (cara*); run `caracal-agent install`, then \
         `systemctl reload NetworkManager`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_way_to_name_our_interfaces_is_enough() {
        for (text, is_enough) in [
            (
                "[device-caracal]\nmatch-device=interface-name:cara*\nmanaged=0\n",
                true,
            ),
            (
                "[keyfile]\nunmanaged-devices=interface-name:docker0;interface-name:cara*\n",
                true,
            ),
            ("[keyfile]\nunmanaged-devices+=interface-name:cara*\n", true),
            ("[keyfile]\nunmanaged-devices=interface-name:cali*\n", false),
            ("[main]\nunmanaged-devices=interface-name:cara*\n", false),
            ("", false),
        ] {
            let file = ConfigurationFile {
                path: "/a".to_owned(),
                text: text.to_owned(),
            };
            assert_eq!(finding(&[file]).is_none(), is_enough, "{text}");
        }
    }
}
