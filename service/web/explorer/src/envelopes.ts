/** The envelopes of Connect's streams: before each message a byte of flags, and its length in four bytes. */

const HEAD_BYTES = 5;
const LAST = 2;

/** The head of an envelope around so many bytes. */
export function headOf(length: number): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(HEAD_BYTES);
  new DataView(head.buffer).setUint32(1, length);
  return head;
}

export function withEnvelope(text: string): Blob {
  const content = new TextEncoder().encode(text);
  return new Blob([headOf(content.length), content]);
}

/** Read the messages of a stream as they come; the last one, which says how the call ended, is marked. */
export async function* readEnvelopes(stream: ReadableStream<Uint8Array>): AsyncGenerator<{ text: string; isLast: boolean }> {
  const reader = stream.getReader();
  let held = new Uint8Array();
  for (;;) {
    while (held.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (held.length < end) break;
      yield { text: new TextDecoder().decode(held.subarray(HEAD_BYTES, end)), isLast: ((held[0] ?? 0) & LAST) !== 0 };
      held = held.subarray(end);
    }
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
  }
}
