// UUIDs of version 5 (RFC 9562). The browser's own SHA-1 is only there on pages that came over TLS or from loopback.

/** Returns the UUID of a name in a namespace, which is a UUID itself. */
export function uuid5(namespace: string, name: string): string {
  const space = Uint8Array.from(namespace.replaceAll("-", "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
  const text = new TextEncoder().encode(name);
  const content = new Uint8Array(space.length + text.length);
  content.set(space);
  content.set(text, space.length);
  const hash = sha1(content).subarray(0, 16);
  hash[6] = (hash[6]! & 0x0f) | 0x50;
  hash[8] = (hash[8]! & 0x3f) | 0x80;
  const hex = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Returns the SHA-1 (FIPS 180-4) of a content, 20 bytes. */
export function sha1(content: Uint8Array): Uint8Array {
  const padded = new DataView(new ArrayBuffer(Math.ceil((content.length + 9) / 64) * 64));
  new Uint8Array(padded.buffer).set(content);
  padded.setUint8(content.length, 0x80);
  padded.setUint32(padded.byteLength - 8, Math.floor(content.length / 2 ** 29));
  padded.setUint32(padded.byteLength - 4, content.length << 3);
  const state = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0]);
  const words = new Int32Array(80);
  for (let block = 0; block < padded.byteLength; block += 64) {
    for (let at = 0; at < 16; at++) words[at] = padded.getInt32(block + at * 4);
    for (let at = 16; at < 80; at++) {
      words[at] = rotated(words[at - 3]! ^ words[at - 8]! ^ words[at - 14]! ^ words[at - 16]!, 1);
    }
    mix(state, words);
  }
  const hash = new DataView(new ArrayBuffer(20));
  state.forEach((word, at) => hash.setInt32(at * 4, word));
  return new Uint8Array(hash.buffer);
}

function mix(state: Int32Array, words: Int32Array): void {
  let [a, b, c, d, e] = state as unknown as [number, number, number, number, number];
  for (let at = 0; at < 80; at++) {
    const [chosen, constant] =
      at < 20
        ? [(b & c) | (~b & d), 0x5a827999]
        : at < 40
          ? [b ^ c ^ d, 0x6ed9eba1]
          : at < 60
            ? [(b & c) | (b & d) | (c & d), 0x8f1bbcdc]
            : [b ^ c ^ d, 0xca62c1d6];
    const next = (rotated(a, 5) + chosen + e + constant + words[at]!) | 0;
    [a, b, c, d, e] = [next, a, rotated(b, 30), c, d];
  }
  [a, b, c, d, e].forEach((word, at) => (state[at] = state[at]! + word));
}

function rotated(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
