//! Arithmetic modulo the CRC-64/NVME polynomial, bit-reflected: bit 63 is the coefficient of x^0, bit 0 that of x^63.

/// The polynomial without its x^64 term, reflected.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;
/// Initial value and final XOR.
pub(crate) const INVERT: u64 = u64::MAX;
/// x^0.
const ONE: u64 = 1 << 63;

const fn times_x(value: u64) -> u64 {
    (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// x^n; linear in n, meant for the constants of the fold kernels.
pub(crate) const fn x_to(n: usize) -> u64 {
    let mut value = ONE;
    let mut i = 0;
    while i < n {
        value = times_x(value);
        i += 1;
    }
    value
}

/// Product of two residues.
pub(crate) const fn multiply(a: u64, b: u64) -> u64 {
    let mut product = 0;
    let mut power = b;
    let mut i = 0;
    while i < 64 {
        if a << i & ONE != 0 {
            product ^= power;
        }
        power = times_x(power);
        i += 1;
    }
    product
}

/// x^(8 * 2^k), k from 0 to 63.
static BYTE_POWERS: [u64; 64] = {
    let mut powers = [x_to(8); 64];
    let mut k = 1;
    while k < 64 {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// x^(8 n): what a CRC is multiplied with when `n` bytes follow.
pub(crate) fn x_to_bytes(n: u64) -> u64 {
    let set = (0..64).filter(|k| n >> k & 1 == 1);
    set.fold(ONE, |power, k| multiply(power, BYTE_POWERS[k]))
}

/// `TABLES[d][v]`: the state after byte `v` and `d` zero bytes.
static TABLES: [[u64; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut value = 0;
    while value < 256 {
        let mut state = value as u64;
        let mut distance = 0;
        while distance < 8 {
            let mut bit = 0;
            while bit < 8 {
                state = times_x(state);
                bit += 1;
            }
            tables[distance][value] = state;
            distance += 1;
        }
        value += 1;
    }
    tables
};

/// The state after one more byte.
#[inline]
pub(crate) fn step_byte(state: u64, byte: u8) -> u64 {
    TABLES[0][(state as u8 ^ byte) as usize] ^ (state >> 8)
}

/// The state after eight more bytes, read as a little-endian word.
#[inline]
pub(crate) fn step_word(state: u64, word: u64) -> u64 {
    let v = (state ^ word).to_le_bytes();
    TABLES[7][v[0] as usize]
        ^ TABLES[6][v[1] as usize]
        ^ TABLES[5][v[2] as usize]
        ^ TABLES[4][v[3] as usize]
        ^ TABLES[3][v[4] as usize]
        ^ TABLES[2][v[5] as usize]
        ^ TABLES[1][v[6] as usize]
        ^ TABLES[0][v[7] as usize]
}

/// The state after `bytes`.
#[cfg(test)]
pub(crate) fn step_slice(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| step_byte(state, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_steps_equal_byte_steps() {
        let bytes = [1, 2, 3, 250, 5, 6, 77, 8];
        for state in [0, INVERT, 0x0123_4567_89AB_CDEF] {
            assert_eq!(step_word(state, u64::from_le_bytes(bytes)), step_slice(state, &bytes));
        }
    }

    #[test]
    fn powers_agree() {
        for n in [0, 1, 2, 7, 255, 300] {
            assert_eq!(x_to_bytes(n), x_to(8 * n as usize));
        }
    }
}
