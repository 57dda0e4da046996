import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError } from "../api";
import { fetchPicture, type Found, type PictureKey } from "../pictures";

/** How far below the window a picture may be when it is fetched. */
const AHEAD = "400px";

/**
 * A picture of an object, fetched when it comes into view.
 *
 * It is an <img> of a blob with the type of its bytes, so nothing in it can run.
 */
export function Picture({ alt, ...key }: PictureKey & { alt: string }) {
  const frame = useRef<HTMLSpanElement>(null);
  const [found, setFound] = useState<Found>();
  const { collection, tenant, id, property } = key;
  useEffect(() => {
    setFound(undefined);
    const stop = new AbortController();
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((each) => each.isIntersecting)) return;
        observer.disconnect();
        fetchPicture(key, stop.signal).then(setFound, (error: unknown) => {
          if (!stop.signal.aborted) setFound({ missing: error instanceof ApiError ? error.message : String(error) });
        });
      },
      { rootMargin: AHEAD },
    );
    if (frame.current) observer.observe(frame.current);
    return () => {
      observer.disconnect();
      stop.abort();
    };
  }, [collection, tenant, id, property]);
  return (
    <span class="picture" ref={frame}>
      {found === undefined ? <span class="loading" /> : "picture" in found ? <Blob_ blob={found.picture} alt={alt} /> : <NoPicture why={found.missing} />}
    </span>
  );
}

/** A picture that is here already; `showable` says which may be one. */
export function LocalPicture({ blob, alt }: { blob: Blob; alt: string }) {
  return <span class="picture"><Blob_ blob={blob} alt={alt} /></span>;
}

function Blob_({ blob, alt }: { blob: Blob; alt: string }) {
  const [url, setUrl] = useState<string>();
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    setBroken(false);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  if (broken) return <NoPicture why="the picture is damaged" />;
  return url === undefined ? <span class="loading" /> : <img src={url} alt={alt} decoding="async" draggable={false} onError={() => setBroken(true)} />;
}

function NoPicture({ why }: { why: string }) {
  return <span class="missing"><bdi>{why.slice(0, 120)}</bdi></span>;
}
