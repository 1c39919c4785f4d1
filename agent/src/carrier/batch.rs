//! Several packets in one system call: sendmmsg and recvmmsg.
//!
//! In: packets with their nodes, or room for packets. Out: how many the kernel took, or what came
//! and from whom. Decides nothing; `forward` does.
//!
//! Datagrams of one length to one node, such as the segments of a large packet, go as one message
//! that the kernel cuts as late as it can (UDP_SEGMENT): it takes the way through its stack once.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Packets per system call. The kernel takes 1024; beyond some dozens nothing is gained.
pub const SLOTS: usize = 64;

/// Octets of a message of several datagrams: no more than an IP packet holds.
const MESSAGE_MAX: usize = 64_000;

/// Room for two control messages: a TOS and a length of segments.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; 2 * CONTROL_SPACE],
    length: usize,
}

impl Control {
    const EMPTY: Control = Control {
        bytes: [0; 2 * CONTROL_SPACE],
        length: 0,
    };

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, value: &[u8]) {
        let message = &mut self.bytes[self.length..][..CONTROL_SPACE];
        let length = CONTROL_HEADER + value.len();
        message[..8].copy_from_slice(&length.to_ne_bytes());
        message[8..12].copy_from_slice(&level.to_ne_bytes());
        message[12..16].copy_from_slice(&kind.to_ne_bytes());
        message[CONTROL_HEADER..length].copy_from_slice(value);
        self.length += CONTROL_SPACE;
    }
}

/// `struct cmsghdr`: length, level, type; then the data.
const CONTROL_HEADER: usize = 16;
/// Of a control message with one `int` or less.
const CONTROL_SPACE: usize = CONTROL_HEADER + 8;

/// A packet to be sent, without outer header.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub bytes: &'a [u8],
    pub node: Ipv4Addr,
    /// Of the outer header.
    pub tos: u8,
    /// DF of the outer header, as of the inner one.
    pub is_unfragmentable: bool,
}

/// What came in one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    pub length: usize,
    /// Of each datagram, but the last, which may be shorter: the kernel joins those of one length
    /// where the socket asks for it (`UDP_GRO`).
    pub datagram: usize,
    pub from: Ipv4Addr,
    /// Of the outer header, where the socket says it (`IP_RECVTOS`).
    pub tos: Option<u8>,
}

/// What the kernel reads or writes beside the packets; made anew in each call, in the same memory.
pub struct Batch {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    /// Packets of each header.
    parts: Vec<usize>,
}

// SAFETY: the pointers inside are set in the call that uses them and mean nothing outside of it.
#[allow(unsafe_code, reason = "the C structures hold pointers")]
unsafe impl Send for Batch {}

impl Batch {
    pub fn new() -> Batch {
        Batch {
            headers: Vec::with_capacity(SLOTS),
            vectors: Vec::with_capacity(SLOTS),
            names: vec![name(Ipv4Addr::UNSPECIFIED, 0); SLOTS],
            controls: vec![Control::EMPTY; SLOTS],
            parts: Vec::with_capacity(SLOTS),
        }
    }

    /// Sends the first packets, at most `SLOTS`, to `port` (0 on a raw socket) of their nodes, and
    /// returns how many.
    ///
    /// # Errors
    /// What is wrong with the first packet, or with the socket; none was sent then. Of several that
    /// went as one message the kernel may dislike just that: one alone is never part of such a one.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        port: u16,
        packets: &[Outgoing<'_>],
    ) -> io::Result<usize> {
        let packets = &packets[..packets.len().min(SLOTS)];
        let has_messages = port != 0;
        self.vectors.clear();
        self.vectors
            .extend(packets.iter().map(|packet| libc::iovec {
                iov_base: packet.bytes.as_ptr().cast_mut().cast(),
                iov_len: packet.bytes.len(),
            }));
        self.parts.clear();
        let mut rest = packets;
        while let Some(first) = rest.first() {
            let length = if has_messages {
                message_length(rest)
            } else {
                1
            };
            let index = self.parts.len();
            self.names[index] = name(first.node, port);
            self.controls[index] = control(first, length);
            self.parts.push(length);
            rest = &rest[length..];
        }
        self.fill_headers();
        let sent = self.call(|headers, count| {
            // SAFETY: `headers` are `count` headers whose pointers `fill_headers` has just set to
            // names, controls and packets that outlive the call; the kernel only reads them.
            #[allow(
                unsafe_code,
                reason = "sendmmsg has no safe wrapper without allocation"
            )]
            unsafe {
                libc::sendmmsg(socket.as_raw_fd(), headers, count, 0)
            }
        })?;
        Ok(self.parts.iter().take(sent).sum())
    }

    /// Receives what is there into `room`, which is cut into slots of `slot_length`, and waits if
    /// there is nothing. `received` is filled anew.
    ///
    /// # Errors
    /// Late news about packets sent earlier (an ICMP error); the next call goes on.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        room: &mut [u8],
        slot_length: usize,
        received: &mut Vec<Incoming>,
    ) -> io::Result<()> {
        received.clear();
        self.vectors.clear();
        for slot in room.chunks_exact_mut(slot_length).take(SLOTS) {
            self.vectors.push(libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            });
        }
        self.parts.clear();
        self.parts.resize(self.vectors.len(), 1);
        self.controls.fill(Control {
            length: 2 * CONTROL_SPACE,
            ..Control::EMPTY
        });
        self.fill_headers();
        let count = self.call(|headers, count| {
            // SAFETY: as in `send`; the kernel writes at most the lengths given, into `room`, names
            // and controls, which are borrowed mutably for the call.
            #[allow(
                unsafe_code,
                reason = "recvmmsg has no safe wrapper that resets its headers"
            )]
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers,
                    count,
                    libc::MSG_WAITFORONE,
                    ptr::null_mut(),
                )
            }
        })?;
        let headers = self.headers.iter().take(count);
        for ((header, name), control) in headers.zip(&self.names).zip(&self.controls) {
            let length = header.msg_len as usize;
            let said = Said::read(control, header.msg_hdr.msg_controllen);
            received.push(Incoming {
                length,
                datagram: said.datagram.unwrap_or(length),
                from: Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                tos: said.tos,
            });
        }
        Ok(())
    }

    /// One header for each of `parts`.
    fn fill_headers(&mut self) {
        self.headers.clear();
        let mut vectors = &mut self.vectors[..];
        let beside = self.names.iter_mut().zip(&mut self.controls);
        for (part, (name, control)) in self.parts.iter().zip(beside) {
            let (own, rest) = vectors.split_at_mut(*part);
            vectors = rest;
            let header = libc::msghdr {
                msg_name: ptr::from_mut(name).cast(),
                msg_namelen: size_of::<libc::sockaddr_in>() as libc::socklen_t,
                msg_iov: own.as_mut_ptr(),
                msg_iovlen: own.len(),
                msg_control: control.bytes.as_mut_ptr().cast(),
                msg_controllen: control.length,
                msg_flags: 0,
            };
            self.headers.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
    }

    fn call(
        &mut self,
        work: impl FnOnce(*mut libc::mmsghdr, libc::c_uint) -> libc::c_int,
    ) -> io::Result<usize> {
        let count = self.headers.len() as libc::c_uint;
        match work(self.headers.as_mut_ptr(), count) {
            failed @ ..0 => {
                debug_assert_eq!(failed, -1);
                Err(io::Error::last_os_error())
            }
            count => Ok(count as usize),
        }
    }
}

/// How many of the first packets can go as one message: of one length, but the last.
fn message_length(packets: &[Outgoing<'_>]) -> usize {
    let Some((first, others)) = packets.split_first() else {
        return 0;
    };
    let length = first.bytes.len();
    let mut total = length;
    let mut count = 1;
    for next in others {
        total += next.bytes.len();
        let is_alike = (next.node, next.tos) == (first.node, first.tos);
        if !is_alike || next.bytes.len() > length || total > MESSAGE_MAX {
            break;
        }
        count += 1;
        if next.bytes.len() < length {
            break;
        }
    }
    count
}

/// What is to be said beside a message of `count` datagrams that begins with `first`. A socket's own
/// TOS is 0.
fn control(first: &Outgoing<'_>, count: usize) -> Control {
    let mut control = Control::EMPTY;
    if first.tos != 0 {
        let tos = libc::c_int::from(first.tos).to_ne_bytes();
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos);
    }
    if count > 1
        && let Ok(length) = u16::try_from(first.bytes.len())
    {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &length.to_ne_bytes());
    }
    control
}

/// What the kernel says beside a message.
#[derive(Default)]
struct Said {
    /// One octet.
    tos: Option<u8>,
    /// An `int`; 0 is none.
    datagram: Option<usize>,
}

impl Said {
    fn read(control: &Control, length: usize) -> Said {
        let mut said = Said::default();
        let written = control.bytes.get(..length).unwrap_or_default();
        for message in written.chunks(CONTROL_SPACE) {
            let Some((header, value)) = message.split_at_checked(CONTROL_HEADER) else {
                continue;
            };
            let number = |at: usize| header[at..].first_chunk().copied().map(i32::from_ne_bytes);
            match (number(8), number(12)) {
                (Some(libc::IPPROTO_IP), Some(libc::IP_TOS)) => said.tos = value.first().copied(),
                (Some(libc::SOL_UDP), Some(libc::UDP_GRO)) => {
                    let length = value.first_chunk().copied().map(i32::from_ne_bytes);
                    said.datagram = length
                        .and_then(|length| usize::try_from(length).ok())
                        .filter(|length| *length > 0);
                }
                _ => {}
            }
        }
        said
    }
}

fn name(address: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(address).to_be(),
        },
        sin_zero: [0; 8],
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    const SLOT: usize = 2048;

    #[test]
    fn packets_of_one_call_arrive_whole_in_order_with_their_tos() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket2::SockRef::from(&receiver)
            .set_recv_tos_v4(true)
            .expect("settable");
        let port = receiver.local_addr().expect("bound").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let texts: Vec<Vec<u8>> = (0..SLOTS)
            .map(|index| vec![index as u8; index + 1])
            .collect();
        let packets: Vec<Outgoing<'_>> = texts
            .iter()
            .map(|bytes| Outgoing {
                bytes,
                node: Ipv4Addr::LOCALHOST,
                tos: (bytes.len() % 3 * 2) as u8,
                is_unfragmentable: true,
            })
            .collect();
        let sent = Batch::new()
            .send(sender.as_fd(), port, &packets)
            .expect("sends");
        assert_eq!(sent, SLOTS);

        let mut room = vec![0; SLOTS * SLOT];
        let mut received = Vec::new();
        let mut batch = Batch::new();
        // Twice: what the kernel wrote into the headers must not matter to the next call.
        for _ in 0..2 {
            batch
                .receive(receiver.as_fd(), &mut room, SLOT, &mut received)
                .expect("receives");
            assert_eq!(received.len(), SLOTS);
            for ((got, packet), slot) in received.iter().zip(&packets).zip(room.chunks(SLOT)) {
                assert_eq!(&slot[..got.length], packet.bytes);
                assert_eq!((got.from, got.tos), (Ipv4Addr::LOCALHOST, Some(packet.tos)));
            }
            Batch::new()
                .send(sender.as_fd(), port, &packets)
                .expect("sends");
        }
    }

    #[test]
    fn datagrams_of_one_length_arrive_one_by_one() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let port = receiver.local_addr().expect("bound").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let lengths = [[1400; 20].as_slice(), &[900], &[1400; 10], &[1401; 10]].concat();
        let texts: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(index, length)| vec![index as u8; *length])
            .collect();
        let packets: Vec<Outgoing<'_>> = texts
            .iter()
            .map(|bytes| Outgoing {
                bytes,
                node: Ipv4Addr::LOCALHOST,
                tos: 0,
                is_unfragmentable: true,
            })
            .collect();
        let mut batch = Batch::new();
        let sent = batch.send(sender.as_fd(), port, &packets).expect("sends");
        assert_eq!(sent, packets.len());
        assert_eq!(batch.parts, [21, 10, 10]);
        let mut buffer = [0; SLOT];
        for packet in &packets {
            let length = receiver.recv(&mut buffer).expect("arrives");
            assert_eq!(&buffer[..length], packet.bytes);
        }
    }

    #[test]
    fn datagrams_that_the_kernel_joined_say_their_length() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        crate::carrier::wire::join_datagrams(receiver.as_fd()).expect("settable");
        let port = receiver.local_addr().expect("bound").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let text = [7; 1400];
        let packet = Outgoing {
            bytes: &text,
            node: Ipv4Addr::LOCALHOST,
            tos: 0,
            is_unfragmentable: true,
        };
        let last = Outgoing {
            bytes: &text[..100],
            ..packet
        };
        let mut batch = Batch::new();
        batch
            .send(sender.as_fd(), port, &[packet, packet, packet, last])
            .expect("sends");
        let mut room = vec![0; 2 * 65_536];
        let mut received = Vec::new();
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < 3 * 1400 + 100 {
            batch
                .receive(receiver.as_fd(), &mut room, 65_536, &mut received)
                .expect("receives");
            for got in &received {
                let whole = got.length.div_ceil(got.datagram);
                lengths
                    .extend((0..whole).map(|at| got.datagram.min(got.length - at * got.datagram)));
            }
        }
        assert_eq!(lengths, [1400, 1400, 1400, 100]);
    }
}
