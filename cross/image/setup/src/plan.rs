//! What a board's file means for the system: pure, from keys to files.

use crate::file::{BoardFile, Wifi, is_raw_key};

/// A file to write, below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) path: &'static str,
    /// For root alone.
    pub(crate) secret: bool,
    pub(crate) text: String,
}

/// A sentence that says what the file asked for, without secrets; and the files.
pub(crate) fn plan(board: &BoardFile) -> (String, Vec<Write>) {
    let mut said = Vec::new();
    let mut writes = Vec::new();
    let mut write = |path, secret, text| writes.push(Write { path, secret, text });
    if let Some(name) = &board.hostname {
        said.push(format!("name {name}"));
        write("proc/sys/kernel/hostname", false, format!("{name}\n"));
    }
    if let Some(wifi) = &board.wifi {
        said.push(format!("Wi-Fi {:?}", wifi.ssid));
        write("run/headwater/wpa_supplicant.conf", true, wpa_supplicant(wifi));
    }
    if !board.time_servers.is_empty() {
        let servers = board.time_servers.join(" ");
        said.push(format!("time from {servers}"));
        write(
            "run/systemd/timesyncd.conf.d/headwater.conf",
            false,
            format!("[Time]\nNTP={servers}\nFallbackNTP=\n"),
        );
    }
    if let Some(proxy) = board.proxy() {
        // Without the name and the password before the last @.
        let place = proxy.trim_start_matches("http://").rsplit('@').next().unwrap_or_default();
        said.push(format!("proxy {place}"));
    }
    if !board.ssh.keys.is_empty() {
        said.push(format!("ssh for {} key(s)", board.ssh.keys.len()));
        let keys = board.ssh.keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        write("run/headwater/ssh/authorized_keys", true, keys);
    }
    if let Some(token) = board.token() {
        said.push("a token to enrol with".to_owned());
        write("run/headwater/token", true, format!("{token}\n"));
    }
    let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
    (format!("headwater.toml asks for {said}"), writes)
}

/// The name of the network in hex: any bytes may be in it.
fn wpa_supplicant(wifi: &Wifi) -> String {
    let country = wifi.country.as_ref().map(|country| format!("country={country}\n")).unwrap_or_default();
    let ssid: String = wifi.ssid.bytes().map(|byte| format!("{byte:02x}")).collect();
    let key = match &wifi.password {
        None => "key_mgmt=NONE".to_owned(),
        Some(key) if is_raw_key(key) => format!("psk={key}"),
        // Up to the line's last quote, so quotes within need no escape.
        Some(password) => {
            format!("psk=\"{password}\"\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1")
        }
    };
    format!("{country}network={{\n\tssid={ssid}\n\tscan_ssid=1\n\t{key}\n}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str) -> (String, Vec<Write>) {
        plan(&text.parse().unwrap())
    }

    #[test]
    fn a_network_with_any_name_and_password_is_written_as_wpa_supplicant_reads_it() {
        let (said, writes) =
            planned("[wifi]\nssid = 'Grüße \"x\"'\npassword = 'pass\"word\\'\ncountry = \"DE\"\n");
        let [conf] = writes.as_slice() else { panic!("{writes:?}") };
        assert!(conf.secret);
        let name = "country=DE\nnetwork={\n\tssid=4772c3bcc39f6520227822\n";
        assert!(conf.text.starts_with(name), "{}", conf.text);
        assert!(conf.text.contains("\tpsk=\"pass\"word\\\"\n"), "{}", conf.text);
        assert!(!said.contains("word"), "{said}");
    }

    #[test]
    fn an_open_network_has_no_key() {
        let (_, writes) = planned("[wifi]\nssid = \"barn\"\n");
        assert_eq!(writes[0].text, "network={\n\tssid=6261726e\n\tscan_ssid=1\n\tkey_mgmt=NONE\n}\n");
    }

    #[test]
    fn without_keys_there_is_no_file_that_opens_ssh() {
        let (said, writes) = planned("hostname = \"north\"\n");
        assert!(writes.iter().all(|write| !write.path.contains("ssh")));
        assert_eq!(said, "headwater.toml asks for name north");
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        assert_eq!(planned(""), ("headwater.toml asks for nothing".to_owned(), Vec::new()));
    }
}
