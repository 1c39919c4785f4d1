//! Clients without graceful restart whose connections end, and that are back at once.

use std::io::Write;
use std::net::TcpStream;
use std::ops::RangeInclusive;

use crate::peer::{Peer, connect, open, reset};
use crate::scene::{Scene, config_with, in_namespace, with_range};

const CLIENTS: RangeInclusive<u8> = 101..=200;
const ROUNDS: usize = 10;
const HOLD_TIME_SECS: u16 = 90;

/// A connection on which the client has said its OPEN.
fn opened(last: u8) -> (u8, TcpStream) {
    let mut stream = connect(last);
    let open = open(last, HOLD_TIME_SECS);
    stream.write_all(&open).expect("written");
    (last, stream)
}

#[test]
fn clients_that_are_back_at_once_are_taken_at_the_first_try() {
    in_namespace(|| {
        let nobody = config_with(&[], |_, _| {});
        let places = CLIENTS.count();
        let _scene = Scene::start_as(with_range(nobody, "127.0.0.0/24", places));
        let mut clients: Vec<Peer> = CLIENTS
            .map(|last| Peer::establish(last, HOLD_TIME_SECS))
            .collect();
        for round in 0..ROUNDS {
            for client in clients.drain(..) {
                if round % 2 == 0 {
                    reset(client.stream);
                }
            }
            let opened: Vec<(u8, TcpStream)> = CLIENTS.map(opened).collect();
            let back = opened.into_iter().map(|(last, stream)| {
                Peer::establish_with(stream, &[])
                    .unwrap_or_else(|| panic!("round {round}: 127.0.0.{last} was turned away"))
            });
            clients.extend(back);
        }
    });
}
