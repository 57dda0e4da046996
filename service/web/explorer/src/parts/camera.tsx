import { useEffect, useRef, useState } from "preact/hooks";

import { messageOf } from "../item-failure";
import { Dialog } from "./dialog";

/** A picture from this machine's camera. The browser asks for permission, and the camera is off again when this closes. */
export function Camera({ onClose, onPicture }: { onClose: () => void; onPicture: (file: File) => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [fault, setFault] = useState("");
  const [ready, setReady] = useState(false);
  useEffect(() => {
    let stream: MediaStream | undefined;
    let closed = false;
    const end = () => stream?.getTracks().forEach((each) => each.stop());
    navigator.mediaDevices.getUserMedia({ video: true }).then(
      (given) => {
        stream = given;
        if (closed) end();
        else if (video.current) video.current.srcObject = given;
      },
      (error: unknown) => setFault(messageOf(error)),
    );
    return () => {
      closed = true;
      end();
    };
  }, []);
  const shoot = () => {
    const shown = video.current;
    if (!shown) return;
    const canvas = document.createElement("canvas");
    canvas.width = shown.videoWidth;
    canvas.height = shown.videoHeight;
    canvas.getContext("2d")?.drawImage(shown, 0, 0);
    canvas.toBlob((blob) => {
      if (blob) onPicture(new File([blob], "camera.jpg", { type: "image/jpeg" }));
      onClose();
    }, "image/jpeg", 0.92);
  };
  return (
    <Dialog title="Take a picture" onClose={onClose}>
      {fault ? <p class="note error" role="alert">There is no picture from the camera: <bdi>{fault}</bdi></p> : <video ref={video} class="camera" autoplay muted playsInline onLoadedData={() => setReady(true)} />}
      <div class="row">
        <button type="button" class="primary" disabled={!ready} onClick={shoot}>Use this picture</button>
        <button type="button" onClick={onClose}>Cancel</button>
      </div>
    </Dialog>
  );
}
