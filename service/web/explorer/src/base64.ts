/** Bytes to base64 and back, as the JSON of protobuf has them. */

/** Decode base64, with or without padding. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** Encode a file; the browser does it off the main thread. */
export function toBase64(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      const url = String(reader.result);
      resolve(url.slice(url.indexOf(",") + 1));
    };
    reader.onerror = () => reject(new Error(`${file instanceof File ? file.name : "the picture"} cannot be read`));
    reader.readAsDataURL(file);
  });
}

/** Read a Vector: little-endian float32. */
export function toFloats(data: string): Float32Array {
  const bytes = fromBase64(data);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: Math.floor(bytes.length / 4) }, (_, at) => view.getFloat32(at * 4, true));
}
