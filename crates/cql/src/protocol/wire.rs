//! The protocol's notations (section 3): reading them off a body with every length checked, and writing them.

use crate::error::Error;
use std::net::IpAddr;

/// A cursor over a request's body. Never reads past its end.
#[derive(Clone)]
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

fn truncated() -> Error {
    Error::protocol("the frame's body ends in the middle of a field")
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { body, at: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(length).ok_or_else(truncated)?;
        let bytes = self.body.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub fn short(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn int(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn long(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn string(&mut self) -> Result<&'a str, Error> {
        let length = usize::from(self.short()?);
        text(self.take(length)?)
    }

    pub fn long_string(&mut self) -> Result<&'a str, Error> {
        let length = usize::try_from(self.int()?)
            .map_err(|_| Error::protocol("a string has a negative length"))?;
        text(self.take(length)?)
    }

    pub fn short_bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = usize::from(self.short()?);
        self.take(length)
    }

    /// `None` for a negative length.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, Error> {
        match usize::try_from(self.int()?) {
            Ok(length) => Ok(Some(self.take(length)?)),
            Err(_) => Ok(None),
        }
    }

    pub fn string_list(&mut self) -> Result<Vec<&'a str>, Error> {
        let count = self.short()?;
        (0..count).map(|_| self.string()).collect()
    }

    pub fn string_map(&mut self) -> Result<Vec<(&'a str, &'a str)>, Error> {
        let count = self.short()?;
        (0..count)
            .map(|_| Ok((self.string()?, self.string()?)))
            .collect()
    }

    /// Skips a custom payload ([bytes map]): it is for the server's plug-ins, and there are none.
    pub fn skip_bytes_map(&mut self) -> Result<(), Error> {
        for _ in 0..self.short()? {
            self.string()?;
            self.bytes()?;
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::protocol("a string is not UTF-8"))
}

pub fn put_short(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_int(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_long(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A length or count; what this door sends is far below 2 GiB.
pub fn put_length(out: &mut Vec<u8>, length: usize) {
    put_int(out, i32::try_from(length).unwrap_or(i32::MAX));
}

/// Cuts the string at 65,535 bytes: the notation has no room for more.
pub fn put_string(out: &mut Vec<u8>, value: &str) {
    let mut end = value.len().min(usize::from(u16::MAX));
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    put_short(out, end as u16);
    out.extend_from_slice(&value.as_bytes()[..end]);
}

pub fn put_short_bytes(out: &mut Vec<u8>, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    put_short(out, value.len() as u16);
    out.extend_from_slice(value);
}

pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_length(out, value.len());
    out.extend_from_slice(value);
}

pub fn put_null(out: &mut Vec<u8>) {
    put_int(out, -1);
}

pub fn put_string_list<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = &'a str>) {
    put_short(out, values.len() as u16);
    for value in values {
        put_string(out, value);
    }
}

pub fn put_inet(out: &mut Vec<u8>, address: IpAddr, port: u16) {
    put_inet_address(out, address);
    put_int(out, i32::from(port));
}

pub fn put_inet_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(16);
            out.extend_from_slice(&address.octets());
        }
    }
}
