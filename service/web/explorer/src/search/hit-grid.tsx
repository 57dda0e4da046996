import { smallProperty, titleProperty } from "../collections";
import { Picture } from "../parts/picture";
import { Line, short } from "../parts/text";
import { asText } from "../parts/value";
import { href } from "../router";
import type { CollectionJson, DataObjectJson, JsonFloat, JsonValue } from "../types";

/** An object that was found or listed. */
export interface Found {
  object: DataObjectJson;
  distance?: JsonFloat | undefined;
  certainty?: JsonFloat | undefined;
  score?: JsonFloat | undefined;
}

const SHOWN_PROPERTIES = 3;

interface GridProps {
  hits: Found[];
  collection: CollectionJson;
  tenant: string;
  /** The blob property to show; undefined for a collection without pictures. */
  picture: string | undefined;
  likeHref: (id: string) => string;
}

/** Hits as a grid of pictures; without pictures as cards of text. */
export function HitGrid({ hits, collection, tenant, picture, likeHref }: GridProps) {
  const title = titleProperty(collection);
  const beside = smallProperty(collection);
  // The answer has them in any order.
  const order = (collection.properties ?? []).map((each) => each.name ?? "").filter((each) => each !== title);
  return (
    <ol class={picture ? "grid" : "grid texts"}>
      {hits.map((hit) => (
        <HitCard key={hit.object.id} hit={hit} name={collection.name ?? ""} tenant={tenant} picture={picture} title={title} order={order} beside={beside} likeHref={likeHref} />
      ))}
    </ol>
  );
}

interface CardProps {
  hit: Found;
  name: string;
  tenant: string;
  picture: string | undefined;
  title: string | undefined;
  order: string[];
  beside: string | undefined;
  likeHref: (id: string) => string;
}

function HitCard({ hit, name, tenant, picture, title, order, beside, likeHref }: CardProps) {
  const { id = "", properties = {} } = hit.object as { id?: string; properties?: Record<string, JsonValue> };
  const heading = title === undefined ? id : asText(properties[title] ?? id);
  const label = short(heading, 80);
  const rest = order.flatMap((property): [string, JsonValue][] => {
    const value = properties[property];
    return value === undefined || value === null ? [] : [[property, value]];
  });
  const target = href("object", { collection: name, tenant, id });
  return (
    <li class="hit">
      <a class="frame" href={target} aria-label={picture ? `Show ${label}` : undefined}>
        {picture ? <Picture collection={name} tenant={tenant} id={id} property={picture} beside={beside} alt="" /> : <bdi class="text excerpt">{short(heading, 400)}</bdi>}
      </a>
      <div class="about">
        {picture && <a class="title" href={target}><Line>{heading}</Line></a>}
        <Measures hit={hit} />
        {rest.length > 0 && (
          <dl>
            {rest.slice(0, SHOWN_PROPERTIES).map(([property, value]) => (
              <div><dt><Line clamp={40}>{property}</Line></dt><dd><Line>{asText(value)}</Line></dd></div>
            ))}
          </dl>
        )}
        <a class="like" href={likeHref(id)} aria-label={`More like this: ${label}`}>More like this</a>
      </div>
    </li>
  );
}

/** How near a hit is. */
function Measures({ hit }: { hit: Found }) {
  const distance = Number(hit.distance);
  return (
    <p class="measures">
      {hit.distance !== undefined && <span title="Distance to the query: less is nearer">distance {digits(distance)}</span>}
      {hit.score !== undefined && <span title="How well it fits: more is better">score {digits(Number(hit.score))}</span>}
      {hit.certainty !== undefined && <meter aria-hidden="true" min={0} max={1} value={Number(hit.certainty)} title={`certainty ${digits(Number(hit.certainty))}`} />}
    </p>
  );
}

function digits(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
}
