import { LocalPicture } from "../parts/picture";
import type { PictureItem } from "./comparison";

/** A small picture beside its name, which says what it is. */
export function Thumbnail({ picture }: { picture: PictureItem }) {
  return picture.shown ? <LocalPicture blob={picture.shown} alt="" /> : <span class="picture"><span class="missing">not shown here</span></span>;
}
