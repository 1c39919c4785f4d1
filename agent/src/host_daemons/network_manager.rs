//! NetworkManager: whether it is kept off our interfaces, and whether it has noticed.
//!
//! Pure. Files that NetworkManager writes for itself (`NetworkManager-intern.conf`) are not looked at.

use super::{ConfigurationFile, is_no, settings};

/// Whose files come before others of the same name.
pub(super) const DIRECTORIES: [&str; 3] = [
    "etc/NetworkManager",
    "run/NetworkManager",
    "usr/lib/NetworkManager",
];
const DEVICES: &str = "interface-name:cara*";
/// Exceptions from it can hardly be meant for ours.
const ALL_DEVICES: &str = "*";

/// The order in which they are read: a directory after the other, and the main file before that of
/// the administrator.
pub(super) fn in_order(
    main: Vec<ConfigurationFile>,
    drop_ins: Vec<ConfigurationFile>,
) -> Vec<ConfigurationFile> {
    let is_in = |file: &ConfigurationFile, directory: &str| file.path[1..].starts_with(directory);
    let [administrators, of_this_boot, distributions] = DIRECTORIES;
    let of = |directory| drop_ins.iter().filter(move |file| is_in(file, directory));
    of(distributions)
        .chain(of(of_this_boot))
        .chain(&main)
        .chain(of(administrators))
        .cloned()
        .collect()
}

/// What is wrong for us with these files, in the order in which they are read, and with the
/// interfaces of ours that it manages all the same.
pub(super) fn finding(configuration: &[ConfigurationFile], managed: &[String]) -> Option<String> {
    let unmanaged = UnmanagedDevices::read(configuration);
    let is_for_new_ones = configuration.iter().any(keeps_off_new_ones);
    let (is_kept_off, managed) = (unmanaged.has_ours, managed.first());
    Some(match (managed, unmanaged.replaced_by) {
        (None, _) if is_kept_off || is_for_new_ones => return None,
        (Some(name), _) if is_kept_off => format!(
            "it manages {name} although a file keeps it off our interfaces (cara*): \
             `systemctl reload NetworkManager`"
        ),
        (_, Some(path)) => format!(
            "{path} begins the list unmanaged-devices anew, so that nothing keeps it off our \
             interfaces (cara*); write unmanaged-devices+= there, then \
             `systemctl reload NetworkManager`"
        ),
        (Some(name), None) if is_for_new_ones => format!(
            "it manages {name}, and managed=0 in a section [device…] is for interfaces that it has \
             not seen yet; run `caracal-agent install`, then `systemctl reload NetworkManager`"
        ),
        _ => "no file keeps it off our interfaces (cara*); run `caracal-agent install`, then \
              `systemctl reload NetworkManager`"
            .to_owned(),
    })
}

/// What the list of that name in section `keyfile` comes to.
#[derive(Default)]
struct UnmanagedDevices {
    has_ours: bool,
    /// The file that took ours out.
    replaced_by: Option<String>,
}

impl UnmanagedDevices {
    fn read(configuration: &[ConfigurationFile]) -> UnmanagedDevices {
        let mut list = UnmanagedDevices::default();
        for file in configuration {
            for (section, key, value) in settings(&file.text) {
                if section == "keyfile" {
                    list.apply(&key, names_ours(&value), &file.path);
                }
            }
        }
        list
    }

    fn apply(&mut self, key: &str, is_named: bool, path: &str) {
        let has_ours = match key {
            "unmanaged-devices" => is_named,
            "unmanaged-devices+" => self.has_ours || is_named,
            "unmanaged-devices-" => self.has_ours && !is_named,
            _ => return,
        };
        if self.has_ours && !has_ours {
            self.replaced_by = Some(path.to_owned());
        }
        self.has_ours = has_ours;
    }
}

/// Whether a section of it is about our interfaces, and says that they are not managed. What is
/// managed already stays so, even when NetworkManager starts again.
fn keeps_off_new_ones(file: &ConfigurationFile) -> bool {
    let settings = settings(&file.text);
    let is_ours = |section: &str| {
        let mut devices = settings.iter().filter(|(one, _, _)| one == section);
        section.starts_with("device")
            && devices.any(|(_, key, value)| key == "match-device" && names_ours(value))
    };
    let mut managed = settings.iter().filter(|(_, key, _)| key == "managed");
    managed.any(|(section, _, value)| is_no(value) && is_ours(section))
}

fn names_ours(value: &str) -> bool {
    let mut specs = value.split([',', ';']).map(str::trim);
    specs.any(|spec| spec == DEVICES || spec == ALL_DEVICES)
}

/// Whether its record of an interface, in /run/NetworkManager/devices, says that it is managed.
pub(super) fn is_managed(record: &str) -> bool {
    let managed = ("device".to_owned(), "managed".to_owned(), "true".to_owned());
    settings(record).contains(&managed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> ConfigurationFile {
        ConfigurationFile {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    const KEYFILE: &str = "[keyfile]\nunmanaged-devices+=interface-name:cara*\n";
    const DEVICE: &str = "[device-caracal]\nmatch-device=interface-name:cara*\nmanaged=0\n";

    #[test]
    fn either_way_to_name_our_interfaces_is_enough() {
        for (text, is_enough) in [
            (DEVICE, true),
            (
                "[keyfile]\nunmanaged-devices=interface-name:docker0;interface-name:cara*\n",
                true,
            ),
            (KEYFILE, true),
            (
                "[device-caracal]\nmatch-device=interface-name:cara*\ncarrier-wait-timeout=0\n",
                false,
            ),
            ("[keyfile]\nunmanaged-devices=interface-name:cali*\n", false),
            ("[main]\nunmanaged-devices=interface-name:cara*\n", false),
            ("", false),
        ] {
            let found = finding(&[file("/a", text)], &[]);
            assert_eq!(found.is_none(), is_enough, "{text}");
        }
    }

    #[test]
    fn list_begun_anew_after_ours_is_named() {
        let later = "[keyfile]\nunmanaged-devices=interface-name:cali*\n";
        let found = finding(&[file("/ours", KEYFILE), file("/later", later)], &[]);
        assert!(
            found
                .as_ref()
                .is_some_and(|found| found.starts_with("/later begins")),
            "{found:?}"
        );
        let added = "[keyfile]\nunmanaged-devices+=interface-name:cali*\n";
        for other in [later, added] {
            assert_eq!(
                finding(&[file("/a", other), file("/ours", KEYFILE)], &[]),
                None
            );
        }
        assert_eq!(
            finding(&[file("/ours", KEYFILE), file("/z", added)], &[]),
            None
        );
    }

    #[test]
    fn files_are_read_by_directory_and_the_main_file_before_the_administrators() {
        let paths = [
            "/etc/NetworkManager/conf.d/10.conf",
            "/run/NetworkManager/conf.d/20.conf",
            "/usr/lib/NetworkManager/conf.d/30.conf",
        ];
        let main = file("/etc/NetworkManager/NetworkManager.conf", "");
        let drop_ins = paths.iter().map(|path| file(path, "")).collect();
        let read = in_order(vec![main.clone()], drop_ins);
        let read: Vec<&str> = read.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(read, [paths[2], paths[1], &main.path, paths[0]]);
    }

    #[test]
    fn what_it_manages_all_the_same_is_named_with_what_helps() {
        let managed = ["cara0123456789a".to_owned()];
        for (text, help) in [
            (KEYFILE, "(cara*): `systemctl reload NetworkManager`"),
            (DEVICE, "run `caracal-agent install`, then"),
        ] {
            let found = finding(&[file("/a", text)], &managed);
            let found = found.unwrap_or_default();
            assert!(found.starts_with("it manages cara0123456789a"), "{found}");
            assert!(found.contains(help), "{found}");
        }
    }

    #[test]
    fn record_says_whether_an_interface_is_managed() {
        // Version 1.42.4, as it wrote them.
        let of_nic = "[device]\nmanaged=true\nperm-hw-addr-fake=56:B7:D3:48:35:DD\n\
                      connection-uuid=a7ad5b7b-adc8-4754-99b0-fc50821be4eb\nnm-owned=false\n";
        let of_workload = "[device]\nperm-hw-addr-fake=EE:EE:EE:EE:EE:EE\nnm-owned=false\n";
        assert_eq!([of_nic, of_workload].map(is_managed), [true, false]);
    }
}
